"""One run: from a plan to the JSON that is kept.

Every workload has its first round, then every workload its second, and so on: what changes slowly on the machine
concerns all of them, and a run that is cut short has something of each. When each has as many as a spread needs, the
shortest workload has the rest of its rounds, then the next: so where there is a limit, as many as possible have all.
A round that would not end within the limit is left out; how long it takes is known from the one before.

Whatever ends a run early, what was measured until then is a result, and says why it is not all.
"""

import sys
import time
import traceback
from datetime import UTC, datetime
from typing import TextIO

from benchmarks import report
from benchmarks.load import reader_cost
from benchmarks.machine import machine, programs, versions
from benchmarks.plan import COUNTING, Plan, turn_seconds
from benchmarks.progress import Progress
from benchmarks.subscribers import raise_files
from benchmarks.turns import Outcome, count_calls, play_round


def measure(command: str, plan: Plan, stream: TextIO = sys.stderr) -> report.Json:
    """Run what is planned, and give the result as JSON.

    What ends it early stands in it as `interrupted`: a Ctrl-C, or a fault of the benchmarks themselves, whose traceback
    is told.
    """
    about: report.Json = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {**versions(), **programs()},
        "reader": reader_cost(),
    }
    raise_files()
    session = _Session(plan, stream)
    try:
        session.run()
    except KeyboardInterrupt:
        about["interrupted"] = f"after {session.elapsed:.0f} s, {session.where}."
    except Exception as exc:
        traceback.print_exc(file=stream)
        about["interrupted"] = f"after {session.elapsed:.0f} s, {session.where}, by {type(exc).__name__}: {exc}."
        about["fault"] = True
    finally:
        session.progress.close()
    about["seconds"] = round(session.elapsed, 1)
    return report.build(command, plan.outcomes, plan.settings, about)


class _Session:
    """A run that is under way."""

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        self.progress = Progress(plan.turns, stream, expected=plan.seconds, limit=plan.limit)
        self.where = "before the first round"
        """What it is at, for people."""
        self._number = 0
        self._plan = plan
        self._began = time.monotonic()
        self._took: dict[str, float] = {}  # seconds of the last round of a workload

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def run(self) -> None:
        """All rounds for which there is time, then the turns that count system calls."""
        outcomes, rounds = self._plan.outcomes, range(1, self._plan.settings.rounds + 1)
        for self._number in rounds[: report.ENOUGH_ROUNDS]:
            for outcome in outcomes:
                self._round(outcome)
        for outcome in sorted(outcomes, key=lambda outcome: self._took[outcome.workload.name]):
            for self._number in rounds[report.ENOUGH_ROUNDS :]:
                self._round(outcome)
        for outcome in outcomes:
            self._count(outcome)

    def _round(self, outcome: Outcome) -> None:
        plan, name = self._plan, outcome.workload.name
        self.where = f"in round {self._number} of {name}"
        self.progress.each = turn_seconds(outcome.workload, plan.settings)
        if not self._is_time_for(self._took.get(name, 0.0) + plan.counting_seconds):
            self.progress.drop(len(outcome.racing))
            return
        before = self.elapsed
        play_round(outcome, self._number, plan.settings, self.progress)
        self._took[name] = self.elapsed - before

    def _count(self, outcome: Outcome) -> None:
        turns = self._plan.counting_turns(outcome)
        self.where = f"with all rounds over, while the system calls of {outcome.workload.name} were counted"
        self.progress.each = COUNTING
        if not turns or self._is_time_for(COUNTING * turns):
            count_calls(outcome, self._plan.settings, self.progress)
        else:
            outcome.syscalls_missing = "there was no time left for it"

    def _is_time_for(self, seconds: float) -> bool:
        """Whether something may begin: in the first round everything may, however long it takes."""
        limit = self._plan.limit
        return self._number == 1 or limit is None or self.elapsed + seconds <= limit
