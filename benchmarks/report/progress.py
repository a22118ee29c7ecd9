"""Progress of the suite: the current study and the remaining time, on the last terminal line.

Without a terminal it prints plain lines. The line is drawn at most once a second, because it shares
the machine with the measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from benchmarks.results import Finding
from benchmarks.suite import Study, expected_s


class ProgressLine:
    """A context manager that shows the line."""

    def __init__(self, console: Console, studies: Sequence[Study], quick: bool) -> None:
        self._console = console
        self._quick = quick
        self._left_s = expected_s(studies, quick)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", style="dim"),
        )
        self._line = Progress(
            *columns, console=console, refresh_per_second=1, transient=True, disable=not console.is_terminal
        )
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressLine:
        self._line.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.stop()

    def begin(self, study: Study, place: int, of: int) -> None:
        its_s = expected_s([study], self._quick)
        left = f"of about {_clock(its_s)}; remaining in total: {_clock(self._left_s)}"
        self._console.print(f"[bold]{study.name}[/]  {place} of {of}, {left}", highlight=False)
        self._left_s -= its_s
        if self._task is not None:
            self._line.remove_task(self._task)
        self._task = self._line.add_task(f"{study.name}  {place} of {of}", total=of, completed=place - 1, left=left)

    def report(self, text: str) -> None:
        self._console.print(Text(f"  {text}", style="dim"))

    def end(self, finding: Finding) -> None:
        if finding.failed:
            self._console.print(Text(f"  failed: {finding.failed}", style="red"))
        else:
            self._console.print(Text(f"  done in {_clock(finding.seconds)}", style="green"))


def _clock(seconds: float) -> str:
    total_s = max(0, round(seconds))
    return f"{total_s // 60}:{total_s % 60:02d} min" if total_s >= 60 else f"{total_s} s"
