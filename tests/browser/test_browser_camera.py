"""examples/camera.py in Chromium: an `<img>` shows a stream of pictures, without a script."""

from __future__ import annotations

import signal

import pytest
from processes import running

from .conftest import ROOT, OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")

# The colour in the middle of the picture: what is drawn is the frame that is shown.
SHOWN = """() => {
  const image = document.querySelector("img");
  const context = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d");
  context.drawImage(image, -image.naturalWidth / 2, -image.naturalHeight / 2);
  return context.getImageData(0, 0, 1, 1).data.join();
}"""


async def test_an_image_shows_one_frame_after_the_other(open_page: OpenPage) -> None:
    with running("--port", "0", start=(str(ROOT / "examples" / "camera.py"),)) as camera:
        page = await open_page(f"http://127.0.0.1:{camera.port}/")
        await page.wait_for_function("() => document.querySelector('img').naturalWidth === 320")
        colour = await page.evaluate(SHOWN)
        for _ in range(3):
            changed = f"(colour) => {{ const now = ({SHOWN})(); return now !== colour && now; }}"
            colour = await (await page.wait_for_function(changed, arg=colour)).json_value()
            assert colour.endswith(",255"), "it is opaque: a picture, and no empty canvas"
        await page.close()
        camera.signal(signal.SIGINT)
        assert camera.end() == (0, "")
