"""The course of a probe: what is asked first, what is asked then, and when it is enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

from . import ways
from .arrivals import Recorder, Recording
from .bursts import bursts
from .culprits import Case
from .findings import Finding, seconds
from .inference import compared, infer
from .measure import Asker, Limits
from .verdict import judge
from .ways import Way

_PLENTY = 24  # pauses: after so many, what else comes will come so too
_FLOW = 4000  # reads: so many in the least time show that it flows
_FLOOD = 100_000  # reads, as a fast line brings in a second or two: each is kept
_SHORT = 0.3  # seconds: for less, what is sent fast is gathered by HAProxy, and by busy machines
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
    _under_way: dict[str, tuple[Way, Recorder, float]] = field(default_factory=dict)

    async def run(self) -> None:
        """Ask in all ways. Raises Unreachable, before anything is known."""
        first = await self._first()
        if first.marks:
            await self._stamped(first)
        elif first.ending != "failed" and 200 <= first.status < 300:
            await self._foreign(first)

    # -- asking ------------------------------------------------------------------------------------------------------

    async def _first(self) -> Recording:
        method = ways.POST if self.post else ways.FIRST
        case = await self._ask(method)
        if case.recording.status == 406:
            case = await self._ask(ways.ANY)
        elif case.recording.status == 405 and "POST" in str(case.recording.headers.get("allow", "")).upper():
            case = await self._ask(ways.POST)
        self.cases[:] = [case]
        return case.recording

    async def _ask(self, way: Way, longest: float = 0.0) -> Case:
        self.progress(f"asking: {way.name}")
        if self._is_ours:
            way = ways.fresh(way, f"{time.monotonic_ns()}")

        def enough(recorder: Recorder, now: float) -> bool:
            self._under_way[way.name] = way, recorder, now
            self.watch(recorder)
            return _shown(recorder, now)

        recording = await self.asker.ask(way, Limits(longest or self.seconds, enough))
        self._under_way.pop(way.name, None)
        case = Case(way.name, recording, found(recording), way.settings)
        self.cases.append(case)
        return case

    def break_off(self) -> None:
        """Take what was under way for what it is so far."""
        for way, recorder, now in self._under_way.values():
            recording = recorder.end(now, "stopped")
            self.cases.append(Case(way.name, recording, found(recording), way.settings))
        self._under_way.clear()

    async def _stamped(self, first: Recording) -> None:
        """Our handler is behind."""
        self._is_ours = True
        step = median([after.sent - before.sent for before, after in _pairs(first)] or [0.1])
        longest = self.seconds if first.ending == "stopped" else max(self.seconds, 2 * first.ended_at)
        places = range(len(self.cases), len(self.cases) + len(ways.STAMPED))
        await asyncio.gather(*(self._ask(way, longest) for way in ways.STAMPED))
        self.cases[places.start :] = sorted(self.cases[places.start :], key=_order)
        await self._confirm([ways.FIRST, *ways.STAMPED], step, longest)
        await self._experiment(longest)
        await self._come_back(first)
        if self.idle:
            case = await self._ask(ways.idle(self.idle), self.idle + 10)
            if case.finding.kind == "cut":
                await self._ask(ways.idle(self.idle, max(case.finding.seconds / 3, 0.1)), self.idle + 10)

    async def _confirm(self, asked: Sequence[Way], step: float, longest: float) -> None:
        """Ask again, slowly, for what came in small batches: busy machines make some, and Nagle's algorithm does."""
        doubtful = {case.name: case.finding for case in self.cases if _is_doubtful(case.finding)}
        if not doubtful or any(case.finding.kind == "held" for case in self.cases):
            return
        slow = [ways.slower(way, step) for way in asked if way.name in doubtful]
        for case in await self._again(slow, 4 * longest):
            if case.finding.kind == "streams":
                self._replace(replace(case, finding=_gathered(case.finding, [*doubtful.values()])))

    async def _again(self, asked: Sequence[Way], longest: float) -> list[Case]:
        """The ways asked once more; `cases` stay as they were."""
        kept = [*self.cases]
        again = await asyncio.gather(*(self._ask(way, longest) for way in asked))
        self.cases[:] = kept
        return again

    def _replace(self, case: Case) -> None:
        place = next(place for place, known in enumerate(self.cases) if known.name == case.name)
        self.cases[place] = case

    async def _experiment(self, longest: float) -> None:
        """Where something is held: how much of it at once, and whether nginx would let it go."""
        held = [case.name for case in self.cases if case.finding.kind in ("held", "batches")]
        if not held:
            return
        asked = [way for way in (ways.FIRST, *ways.STAMPED) if way.name in held]
        _, large = await asyncio.gather(
            self._ask(ways.released(asked[0]), longest), self._ask(ways.volume(asked[0]), longest)
        )
        if large.finding.kind == "streams":  # then this machine may have stood still before
            for case in await self._again(asked, longest):
                self._replace(case)

    async def _come_back(self, first: Recording) -> None:
        if not first.ids:
            return
        self.progress("coming back")
        last = first.marks[len(first.marks) // 2].number if first.marks else first.ids[0]
        limits = Limits(self.seconds, lambda recorder, now: bool(recorder.ids))
        way = ways.resume(str(last))
        recording = await self.asker.ask(ways.fresh(way, str(time.monotonic_ns())) if first.marks else way, limits)
        self.resumed = _resumed(str(last), recording)

    async def _foreign(self, first: Recording) -> None:
        """Somebody else's stream."""
        if self.cases[0].finding.kind == "no stream" or first.status == 204:
            return
        asked = [] if self.cases[0].name == ways.POST.name else ways.FOREIGN
        longest = self._patience(first)
        for way in asked:
            await self._ask(way, longest)
        self._compare()
        await self._come_back(first)
        if self.idle:
            await self._wait_idle()

    def _patience(self, first: Recording) -> float:
        """Seconds for the other ways, where the first one streams: it need not be as long again."""
        paced = bursts(first.pieces)
        if self.cases[0].finding.kind != "streams" or len(paced) < 5:
            return self.seconds
        return min(self.seconds, max(_AT_LEAST, 3 * paced[4].at))

    def _compare(self) -> None:
        """What came bit by bit in one way shows what another way's silence means."""
        streamed = next((case.recording for case in self.cases if case.finding.kind == "streams"), None)
        if streamed is not None:
            self.cases[:] = [
                Case(case.name, case.recording, compared(case.finding, case.recording, streamed), case.asked)
                for case in self.cases
            ]

    async def _wait_idle(self) -> None:
        """Listen for so long, to see whether somebody ends it."""
        way = Way(f"idle for {self.idle:g} s", self._way().headers, self._way().method)
        self.progress(f"asking: {way.name}")
        recording = await self.asker.ask(way, Limits(self.idle + 1))
        finding = found(recording)
        if not finding.bad and recording.ending == "stopped":
            longest = _longest_silence(recording)
            finding = Finding("streams", f"was left alone for {seconds(longest)} of silence", inferred=True)
        self.cases.append(Case(way.name, recording, finding, {"idle": f"{self.idle:g}"}))

    def _way(self) -> Way:
        known = {way.name: way for way in (ways.FIRST, ways.ANY, ways.POST)}
        return known[self.cases[0].name]


def _is_doubtful(finding: Finding) -> bool:
    """Batches, but not those of a buffer's size."""
    return finding.kind == "batches" and (finding.batch is None or finding.batch < 1000 or finding.seconds < _SHORT)


def _gathered(finding: Finding, doubtful: Sequence[Finding]) -> Finding:
    """It streams if it is sent slowly."""
    if len(doubtful) < 3:
        return finding
    most = max(one.seconds for one in doubtful)
    note = f"what is sent faster is gathered for up to {seconds(most)}, as HAProxy does without option http-no-delay"
    return replace(finding, notes=(*finding.notes, note))


def found(recording: Recording) -> Finding:
    """The verdict on one answer: by the sending times if there are any, else by the pattern."""
    return judge(recording) if len(recording.marks) > 1 else infer(recording)


def _pairs(recording: Recording) -> list[tuple[Any, Any]]:
    return list(pairwise(recording.marks))


def _order(case: Case) -> int:
    return [way.name for way in ways.STAMPED].index(case.name)


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
