"""Shared tools of the studies: processes on their own cores, service, upstream, load and clocks.

Here: the settings of one run of the suite for its studies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.git_revision import Revision

FULL_ROUNDS = 5
# With an older revision: a difference of a few percent has to show.
FULL_PAIRS = 10
# A quick run only checks that everything works. Its figures mean nothing.
QUICK_INTERVAL_S = 0.4
QUICK_COUNT = 100


class Lab:
    """`directory`: scratch of this run. `before`: the older revision to measure beside the present
    one.

    `profile`: file for a flame graph of the program under test, from a study that supports it.
    `pythons`: interpreters to measure beside the suite's own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        quick: bool = False,
        rounds: int | None = None,
        profile: Path | None = None,
        before: Revision | None = None,
        pythons: Sequence[str] = (),
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.directory = directory
        self.quick = quick
        self.rounds = rounds or (1 if quick else FULL_PAIRS if before else FULL_ROUNDS)
        self.profile = profile
        self.before = before
        self.pythons = pythons
        self.skipped: list[str] = []
        self._on_progress = on_progress or partial(print, " ", flush=True)

    def __repr__(self) -> str:
        return f"Lab({'quick' if self.quick else 'full'}, {self.rounds} rounds, {self.directory})"

    def seconds(self, full: float) -> float:
        """Duration of an interval that takes `full` seconds in a full run."""
        return min(full, QUICK_INTERVAL_S) if self.quick else full

    def count(self, full: int) -> int:
        """Number of users, calls or turns where a full run has `full`."""
        return min(full, QUICK_COUNT) if self.quick else full

    def turns(self, what: str, most: int = 1_000) -> Iterator[int]:
        """The rounds of a study, `most` at most, with their progress."""
        rounds = min(self.rounds, most)
        for turn in range(rounds):
            self.report(f"{what}: round {turn + 1} of {rounds}")
            yield turn

    def report(self, text: str) -> None:
        """Report one line of progress."""
        self._on_progress(text)

    def skip(self, text: str) -> None:
        """Report why something is absent. The suite adds it to the notes."""
        self.skipped.append(text)
        self._on_progress(text)
