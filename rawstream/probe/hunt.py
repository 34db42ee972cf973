"""The course of a probe: what is asked first, what is asked then, and when it is enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from statistics import median

from . import ways
from .arrivals import Recorder, Recording
from .bursts import bursts
from .findings import Case, Finding, seconds
from .inference import compared, infer
from .measure import Asker, Limits
from .verdict import judge, unevenness
from .ways import Way

_PLENTY = 24  # pauses: after so many, what else comes will come so too
_FLOW = 4000  # reads: so many in the least time show that it flows
_FLOOD = 100_000  # reads, as a fast line brings in a second or two: each is kept
_SHORT = 0.3  # seconds: for less, what is sent fast is gathered by HAProxy, and by busy machines
_BARELY = 0.08  # seconds: a clock of 0.2 s makes some wait for so much longer than others
_UNEASY = 0.3  # of a pause: if the usual chunk waits longer than the one that waits least, that one may be the odd one
_AT_LEAST = 2.0  # seconds, in which a stream that is held back shows it


@dataclass
class Hunt:
    """One probe. `cases` grow while it runs, so that who breaks it off has what is known.

    seconds: for each request to an unknown stream. idle: seconds of silence to try, 0 for none. progress: is told
    what is asked; watch: sees what has come, after each read.
    """

    asker: Asker
    seconds: float = 8.0
    idle: float = 0.0
    post: bool = False
    progress: Callable[[str], None] = lambda text: None
    watch: Callable[[Recorder], None] = lambda recorder: None
    cases: list[Case] = field(default_factory=list)
    resumed: str = ""
    """What came of coming back with Last-Event-ID; empty if it could not be tried."""
    _is_ours: bool = False
    _so_far: dict[str, tuple[Way, Callable[[], Recording]]] = field(default_factory=dict)
    """What came of what is being asked, by the names of the ways."""

    async def run(self) -> None:
        """Ask in all ways. Raises Unreachable, before anything is known."""
        first = await self._first()
        self.cases.append(first)
        if first.recording.marks:
            await self._stamped(first)
        elif first.recording.ending != "failed" and 200 <= first.recording.status < 300:
            await self._foreign(first)

    def break_off(self) -> None:
        """Take what was under way for what it is so far, but for what was asked once more."""
        known = {case.way.name for case in self.cases}
        so_far = [(way, end()) for name, (way, end) in self._so_far.items() if name not in known]
        self.cases += [Case(way, recording, found(recording)) for way, recording in so_far]
        self._so_far.clear()

    # -- asking ------------------------------------------------------------------------------------------------------

    async def _ask(self, way: Way, longest: float = 0.0) -> Case:
        (case,) = await self._ask_all([way], longest)
        return case

    async def _ask_all(self, asked: Sequence[Way], longest: float = 0.0) -> list[Case]:
        """Ask in these ways at the same time, each for so many seconds."""
        self.progress(f"asking: {asked[0].name}" if len(asked) == 1 else f"asking in {len(asked)} ways at once")
        recordings = await asyncio.gather(*(self._recorded(way, longest or self.seconds) for way in asked))
        self._so_far.clear()
        return [Case(way, came, found(came)) for way, came in zip(asked, recordings, strict=True)]

    async def _recorded(self, way: Way, longest: float) -> Recording:
        def enough(recorder: Recorder, now: float) -> bool:
            self._so_far[way.name] = way, partial(recorder.end, now, "stopped")
            self.watch(recorder)
            return _shown(recorder, now)

        recording = await self.asker.ask(self._fresh(way), Limits(longest, enough))
        self._so_far[way.name] = way, lambda: recording
        return recording

    def _fresh(self, way: Way) -> Way:
        return ways.fresh(way, f"{time.monotonic_ns()}") if self._is_ours else way

    async def _first(self) -> Case:
        case = await self._ask(ways.POST if self.post else ways.FIRST)
        if case.recording.status == 406:
            return await self._ask(ways.ANY)
        if case.recording.status == 405 and "POST" in str(case.recording.headers.get("allow", "")).upper():
            return await self._ask(ways.POST)
        return case

    async def _come_back(self, first: Case) -> None:
        came = first.recording
        if not came.ids:
            return
        self.progress("coming back")
        last = str(came.marks[len(came.marks) // 2].number if came.marks else came.ids[0])
        limits = Limits(self.seconds, lambda recorder, now: bool(recorder.ids))
        way = self._fresh(ways.resume(last, first.way.method))
        self.resumed = _resumed(last, await self.asker.ask(way, limits))

    # -- our handler is behind ---------------------------------------------------------------------------------------

    async def _stamped(self, first: Case) -> None:
        self._is_ours = True
        came = first.recording
        step = median([after.sent - before.sent for before, after in pairwise(came.marks)] or [0.1])
        longest = self.seconds if came.ending == "stopped" else max(self.seconds, 2 * came.ended_at)
        self.cases += await self._ask_all([way for way in ways.STAMPED if way.name != first.way.name], longest)
        await self._repeat(longest)
        await self._confirm(step, longest + ways.SLOWEST * step)
        await self._experiment(step, longest + ways.SLOWEST * step)
        await self._come_back(first)
        if self.idle:
            await self._fall_silent()

    async def _repeat(self, longest: float) -> None:
        """Ask once more for what came in batches, if no more than half of the ways did.

        Who gathers does so each time; a line that loses packets brings now one way in batches, now another.
        """
        few = [place for place, case in enumerate(self.cases) if case.finding.kind == "batches"]
        if not few or 2 * len(few) > len(self.cases):
            return
        again = await self._ask_all([self.cases[place].way for place in few], longest)
        for place, case in zip(few, again, strict=True):
            if not case.finding.bad:
                self.cases[place] = case

    async def _confirm(self, step: float, longest: float) -> None:
        """Ask again, slowly, for what came in small batches: busy machines make some, and Nagle's algorithm does.

        And for what streamed, but most of it late: where each chunk waits for the next one, a busy machine that held
        the last one up hides it. The ways are judged together. Who gathers by the clock holds most slow streams back,
        but not each: one may be in step with it. A busy machine holds hardly any.
        """
        fast = {place: case for place, case in enumerate(self.cases) if _is_doubtful(case.finding, step)}
        if not fast:
            return
        asked = [ways.slower(case.way, step, number) for number, case in enumerate(fast.values())]
        slow = await self._ask_all(asked, longest)
        clear = [now for before, now in zip(fast.values(), slow, strict=True) if _is_clear(now, before.finding)]
        if 2 * len(clear) > len(slow):
            finding = clear[0].finding
            gathered = _gathered([case.finding for case in fast.values() if case.finding.bad])
            finding = replace(finding, notes=(*finding.notes, *gathered))
            for place, case in zip(fast, slow, strict=True):
                self.cases[place] = replace(case, finding=finding)
        else:
            for (place, before), now in zip(fast.items(), slow, strict=True):
                if now.finding.bad and not before.finding.bad:
                    self.cases[place] = now

    async def _experiment(self, step: float, longest: float) -> None:
        """Where something is held: how much of it at once, for how long, and whether nginx would let it go."""
        held = {place: case for place, case in enumerate(self.cases) if case.finding.kind in ("held", "batches")}
        if not held:
            return
        worst = next(iter(held.values()))
        released, large = await self._ask_all([ways.released(worst.way), ways.volume(worst.way)], longest)
        self.cases += [released, large]
        if worst.finding.kind == "held" and released.finding.bad and large.finding.batch is None:
            self.cases.append(await self._ask(ways.unhurried(worst.way, step), longest))
        if large.finding.kind == "streams":  # then this machine may have stood still before
            asked = [ways.slower(case.way, step, number) for number, case in enumerate(held.values())]
            again = await self._ask_all(asked, longest)
            for place, case in zip(held, again, strict=True):
                self.cases[place] = case

    async def _fall_silent(self) -> None:
        case = await self._ask(ways.idle(self.idle), self.idle + 10)
        self.cases.append(case)
        if case.finding.kind == "cut":
            beating = ways.idle(self.idle, max(case.finding.seconds / 3, 0.1))
            self.cases.append(await self._ask(beating, self.idle + 10))

    # -- somebody else's stream --------------------------------------------------------------------------------------

    async def _foreign(self, first: Case) -> None:
        if first.finding.kind == "no stream" or first.recording.status == 204:
            return
        longest = self._patience(first)
        for way in ways.FOREIGN:
            if way.name != first.way.name and first.way.method == "GET":
                self.cases.append(await self._ask(way, longest))
        self._compare()
        await self._come_back(first)
        if self.idle:
            await self._wait_idle(first.way)

    def _patience(self, first: Case) -> float:
        """Seconds for the other ways, where the first one streams: it need not be as long again."""
        paced = bursts(first.recording.pieces)
        if first.finding.kind != "streams" or len(paced) < 5:
            return self.seconds
        return min(self.seconds, max(_AT_LEAST, 3 * paced[4].at))

    def _compare(self) -> None:
        """What came bit by bit in one way shows what another way's silence means."""
        streamed = next((case.recording for case in self.cases if case.finding.kind == "streams"), None)
        if streamed is not None:
            self.cases[:] = [
                replace(case, finding=compared(case.finding, case.recording, streamed)) for case in self.cases
            ]

    async def _wait_idle(self, way: Way) -> None:
        """Listen for so long, to see whether somebody ends it."""
        way = replace(way, name=f"idle for {self.idle:g} s")
        self.progress(f"asking: {way.name}")
        recording = await self.asker.ask(way, Limits(self.idle + 1))
        finding = found(recording)
        if not finding.bad and recording.ending in ("complete", "stopped"):
            longest = _longest_silence(recording)
            if longest < self.idle:
                finding = Finding("unknown", f"was never silent for longer than {seconds(longest)}", inferred=True)
            else:
                finding = Finding("streams", f"was left alone for {seconds(longest)} of silence", inferred=True)
        self.cases.append(Case(way, recording, finding))


def _is_doubtful(finding: Finding, step: float) -> bool:
    """Batches, but not those of a buffer's size; or what comes late as a rule, though not in batches."""
    if finding.kind == "streams":
        return finding.seconds > _UNEASY * step
    return finding.kind == "batches" and (finding.batch is None or finding.batch % 1024 > 0 or finding.seconds < _SHORT)


def _is_clear(slow: Case, fast: Finding) -> bool:
    """Whether what is sent slowly comes evenly, at least beside what it was when sent fast.

    Each may wait for as long as the others: HAProxy lets the kernel wait for more, for 0.2 s from the first byte on.
    """
    return slow.finding.kind == "streams" and unevenness(slow.recording.marks) < max(_BARELY, fast.seconds / 4)


def _gathered(fast: Sequence[Finding]) -> tuple[str, ...]:
    """A word where not chance alone has gathered what was sent fast."""
    usual = median(finding.seconds for finding in fast) if fast else 0.0
    words = f"what is sent faster is gathered for up to {seconds(usual)}, as HAProxy does without option http-no-delay"
    return (words,) if len(fast) >= 3 and usual < _SHORT else ()


def found(recording: Recording) -> Finding:
    """The verdict on one answer: by the sending times if there are any, else by the pattern."""
    return judge(recording) if len(recording.marks) > 1 else infer(recording)


def _shown(recorder: Recorder, now: float) -> bool:
    """Enough of an unknown stream."""
    if len(recorder.pieces) > _FLOOD:
        return True
    if recorder.marks or now < _AT_LEAST:
        return False
    return recorder.pauses >= _PLENTY or len(recorder.pieces) > _FLOW


def _longest_silence(recording: Recording) -> float:
    times = [recording.head_at or 0.0, *(piece.at for piece in recording.pieces), recording.ended_at]
    return max(after - before for before, after in pairwise(times))


def _resumed(last: str, recording: Recording) -> str:
    if recording.status == 204:
        return f"after id {last}: 204, there is nothing more"
    if not recording.ids:
        return f"after id {last}: no event came"
    first = recording.ids[0]
    if recording.marks and first == str(int(last) + 1):
        return f"works: after id {last} came {first}"
    if recording.marks or first == last:
        return f"does not work: after id {last} came {first}"
    return f"after id {last} came {first}"
