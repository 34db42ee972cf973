"""docs/how-to tells the truth: each page is followed as it stands, and what its configuration promises is looked at.

A test has the name of its page. What cannot be had here: a container is not built (its commands run without one), and
no cluster reads the YAML (its probes are asked as a kubelet would, and its times are added up).
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from how_to import PAGES, PATIENCE, Page
from processes import read_rest, read_until
from redis_server import RedisServer
from support import absent

ROOT = PAGES.parent.parent
NAMES = sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "README")
RESERVE = 5.0
"""Seconds beyond the grace time after which the command line kills workers: so long may an orderly end take."""


@pytest.fixture
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Page:
    """The page that the test is named after."""
    return Page(request.node.name.removeprefix("test_"), tmp_path)


def needs(program: str) -> str:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or absent(f"{program} is not installed")


# -- pages that are followed, and no more ------------------------------------------------------------------------------


def test_llm(page: Page) -> None:
    with page:
        page.follow()


def test_jobs(page: Page) -> None:
    with page:
        page.follow()


def test_embed(page: Page) -> None:
    with page:
        page.follow()


def test_tls(page: Page) -> None:
    needs("openssl")
    with page:
        page.follow()


def test_redis(page: Page, redis_server: RedisServer) -> None:
    page.ports["6379"] = str(redis_server.port)
    with page:
        page.follow()


def test_workers(page: Page) -> None:
    with page:
        page.follow()


# -- nginx -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def handed_to_nginx(page: Page) -> Iterator[None]:
    """nginx inherits a socket on its port, as from one that it replaces: who connects before it is up waits for it."""
    needs("nginx")
    with socket.create_server(("127.0.0.1", int(page.ports["8080"]))) as listening:
        page.environment["NGINX"] = f"{listening.fileno()};"
        page.pass_fds.append(listening.fileno())
        yield


def directives(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.endswith(";") and not line.startswith("#")}


def test_nginx(page: Page) -> None:
    with handed_to_nginx(page), page:
        page.follow()
    explained = re.findall(r"^```nginx\n(.*?)^```$", (PAGES.parent / "proxies.md").read_text(), re.M | re.S)[0]
    assert directives(explained) - directives(page.files["nginx.conf"]) == {"listen 80;", "server_name app.example;"}


def test_files(page: Page, tmp_path: Path) -> None:
    front = Page("nginx", tmp_path)
    page.ports["8080"] = front.ports["8080"]
    front.ports["8000"] = page.ports["8000"]
    user = "user root;\n" if os.geteuid() == 0 else ""  # the test's directory is for its owner alone
    inside = front.file("nginx.conf").replace("location / {", page.file("files.conf") + "location / {", 1)
    (tmp_path / "nginx.conf").write_text(user + inside.replace("/srv/app", str(tmp_path)))
    with handed_to_nginx(page), page:
        page.follow()
        page.start("nginx -p . -c nginx.conf -e error.log")
        request = urllib.request.Request(f"http://127.0.0.1:{page.ports['8080']}/by-nginx/song")
        request.add_header("Range", "bytes=0-9")
        with opened(request) as part:
            assert (part.status, len(part.read())) == (206, 10)
        with (
            pytest.raises(urllib.error.HTTPError, match="404"),
            opened(request.full_url.replace("by-nginx", "internal")),
        ):
            pass


def opened(request: urllib.request.Request | str) -> Any:
    """An answer, past any proxy that the environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE)


# -- units, images, clusters: the server ends in order, within their times ---------------------------------------------


def closes_in_order(page: Page, process: subprocess.Popen[str], target: str) -> None:
    """At its signal a server tells a reader, refuses who comes then, and ends; `page` looks at its status."""
    address = ("127.0.0.1", int(page.ports["8000"]))
    with socket.create_connection(address, timeout=PATIENCE) as reader:
        reader.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        read_until(reader, b"data: 0\n")
        process.terminate()
        read_until(reader, b"event: stream-closing\n")
        read_rest(reader)
    process.wait(PATIENCE)


def grace(command: list[str]) -> float:
    return float(command[command.index("--timeout-grace") + 1])


def unit(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return {name: dict(section) for name, section in parser.items()}


def test_systemd(page: Page, tmp_path: Path) -> None:
    """What ExecStart starts, on a socket of systemd's own making."""
    needs("systemd-socket-activate")  # it hands no PYTHONPATH on
    (tmp_path / "rawstream").symlink_to(ROOT / "rawstream")
    service, listens = unit(page.file("app.service"))["Service"], unit(page.file("app.socket"))["Socket"]
    start = service["ExecStart"].removeprefix("/srv/app/venv/bin/")
    activate = f"systemd-socket-activate -l {listens['ListenStream']} {start} 2> journal &"
    assert activate == page.here(page.commands()[0][0])
    assert float(service["TimeoutStopSec"]) >= grace(shlex.split(start)) + RESERVE
    assert "KillSignal" not in service  # it is SIGTERM
    with page:
        page.follow()
        closes_in_order(page, page.running[0], "/")


def test_systemd_units_are_ones_that_systemd_reads(tmp_path: Path) -> None:
    page = Page("systemd", tmp_path)
    for name in ("app.socket", "app.service"):
        (tmp_path / name).write_text(page.file(name).replace("/srv/app/venv/bin/python", sys.executable))
    verify = [needs("systemd-analyze"), "verify", "--man=no", *(str(tmp_path / name) for name in page.used)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=PATIENCE)
    said = [line for line in done.stderr.splitlines() if "app." in line]
    assert (done.returncode, said) == (0, [])


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's lines: instruction and arguments."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def test_docker(page: Page) -> None:
    steps = instructions(page.file("Dockerfile"))
    assert re.fullmatch("(FROM|COPY|RUN|ENV|WORKDIR|USER|EXPOSE|STOPSIGNAL|HEALTHCHECK|CMD| )+", " ".join(dict(steps)))
    images = [rest.split()[0] for name, rest in steps if name == "FROM"]
    assert len({*images}) == 1  # a virtual environment is of use to the Python that made it
    for rest in (rest for name, rest in steps if name == "RUN"):
        subprocess.run(["sh", "-n", "-c", rest], check=True, timeout=PATIENCE)
        extra = re.search(r"'rawstream\[(\w+)\]'", rest)
        assert extra is not None
        assert extra[1] in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    last = dict(steps)
    assert last["STOPSIGNAL"] == "SIGTERM"
    command = json.loads(last["CMD"])
    assert grace(command) < 10  # after which `docker stop` kills
    assert page.here(shlex.join(command)) == page.here(page.commands()[0][0].removesuffix(" &"))
    assert page.here(page.commands()[1][0]) + " || exit 1" == last["HEALTHCHECK"].partition(" CMD ")[2]
    with page:
        page.follow()
        closes_in_order(page, page.running[0], "/clock")


def loaded(text: str) -> Any:
    """As much of YAML as the pages use: mappings and lists by indentation, and scalars and lists as JSON has them."""
    lines = [(len(line) - len(line.lstrip()), line.strip()) for line in text.splitlines() if line[0] != "#"]
    value = _block(lines)
    assert lines == []
    return value


def _block(lines: list[tuple[int, str]]) -> Any:
    indent, first = lines[0]
    if first.startswith("- "):
        items = []
        while lines and lines[0][0] == indent:
            lines[0] = (indent + 2, lines[0][1].removeprefix("- "))
            items.append(_block(lines))
        return items
    mapping: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        name, colon, value = lines.pop(0)[1].partition(":")
        assert colon == ":"
        assert name not in mapping
        mapping[name] = _scalar(value.strip()) if value else _block(lines)
    return mapping


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        assert re.fullmatch(r"[\w/.-]+", text), text
        return text


def test_kubernetes(page: Page) -> None:
    deployment = loaded(page.file("app.yaml"))["spec"]
    assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    command = container["command"] + container["args"]
    assert shlex.join(command) == page.here(page.commands()[0][0].removesuffix(" &"))
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + grace(command) + RESERVE
    with page:
        page.follow()
        for probe in (container["livenessProbe"], container["readinessProbe"]):
            asked = probe["httpGet"]
            assert asked["port"] == container["ports"][0]["containerPort"] == int(page.ports["8000"])
            with opened(f"http://127.0.0.1:{asked['port']}{asked['path']}") as answer:
                assert answer.status == 200
        closes_in_order(page, page.running[0], "/clock")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", asked["port"]))


def test_prometheus(page: Page) -> None:
    [job] = loaded(page.file("prometheus.yml"))["scrape_configs"]
    shown = set(re.findall(r"`(rawstream_\w+?)(?:_total)?[{`]", (PAGES / "prometheus.md").read_text()))
    with page:
        page.follow()
        [target] = job["static_configs"][0]["targets"]
        with opened(f"http://{target}{job['metrics_path']}") as answer:
            text = answer.read().decode()
    told = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    assert shown - {name.removesuffix("_total") for name in told} == set()
    assert len(shown) > 5


# -- all of them -------------------------------------------------------------------------------------------------------


def test_every_page_is_followed_by_a_test_and_listed() -> None:
    assert {name for name in NAMES if f"test_{name}" not in globals()} == set()
    assert sorted(re.findall(r"^\| \[[^]]+\]\((\w+)\.md\)", (PAGES / "README.md").read_text(), re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", [*NAMES, "README"])
def test_every_link_of_a_page_leads_somewhere(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text("utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        linked = (PAGES / target).resolve() if target else PAGES / f"{name}.md"
        assert linked.is_file(), target
        headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("name", [*NAMES, "README"])
def test_a_page_has_rawstream_installed_from_where_it_is_and_from_no_index(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text("utf-8")
    for line in re.findall(r".*pip install.*", text):
        assert "/path/to/rawstream" in line or "--find-links" in line or "rawstream" not in line, line


def test_a_page_that_nobody_follows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block without a name, a file that no command names, an output that is not what is shown."""
    monkeypatch.setattr("how_to.PAGES", tmp_path)
    (tmp_path / "nameless.md").write_text("```python\nimport this\n```\n")
    with pytest.raises(AssertionError, match="a block that nobody runs"):
        Page("nameless", tmp_path)
    (tmp_path / "idle.md").write_text("```python\n# idle.py\n```\n\n```console\n$ echo 1\n1\n```\n")
    with pytest.raises(AssertionError, match="files that nobody uses"), Page("idle", tmp_path) as page:
        page.follow()
    (tmp_path / "wrong.md").write_text("```console\n$ printf '1\\n3\\n'\n1\n2\n```\n")
    with pytest.raises(AssertionError, match="3"), Page("wrong", tmp_path) as page:
        page.follow()
    (tmp_path / "loud.md").write_text("```console\n$ printf '1\\n2\\n' &\n1\n```\n")
    with pytest.raises(AssertionError, match="2"), Page("loud", tmp_path) as page:
        page.follow()
