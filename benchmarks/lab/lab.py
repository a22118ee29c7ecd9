"""One run of the suite as its studies see it: how long they may take, where they may write, whom they tell. Starts and measures nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.revision import Revision

FULL_ROUNDS = 5
# Beside an older revision: a difference of a few percent has to show.
FULL_PAIRS = 10
# A quick run shows that everything works. Its figures mean nothing.
QUICK_INTERVAL_S = 0.4
QUICK_COUNT = 100


class Lab:
    """`directory`: scratch of this run. `profile`: where a study that can be profiled writes a flame
    graph of the program under test.

    `before`: the older revision to measure beside the present one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        quick: bool = False,
        rounds: int | None = None,
        profile: Path | None = None,
        before: Revision | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.directory = directory
        self.quick = quick
        self.rounds = rounds or (1 if quick else FULL_PAIRS if before else FULL_ROUNDS)
        self.profile = profile
        self.before = before
        self.skipped: list[str] = []
        self._tell = tell

    def __repr__(self) -> str:
        return f"Lab({'quick' if self.quick else 'full'}, {self.rounds} rounds, {self.directory})"

    def seconds(self, full: float) -> float:
        """How long a interval lasts that takes `full` seconds in a full run."""
        return min(full, QUICK_INTERVAL_S) if self.quick else full

    def count(self, full: int) -> int:
        """How many users, calls or turns there are where a full run has `full`."""
        return min(full, QUICK_COUNT) if self.quick else full

    def report(self, text: str) -> None:
        """One line of progress."""
        self._tell(text)

    def skip(self, text: str) -> None:
        """Why something is absent. The suite puts it among the notes."""
        self.skipped.append(text)
        self._tell(text)
