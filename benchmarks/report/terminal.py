"""The results as tables on a terminal or as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks.performance_targets import BarResult, summary
from benchmarks.report.grid import Cell, Grid, bars_grid, table_grid
from benchmarks.results import Finding, Results


def show(results: Results, judged: Sequence[BarResult], console: Console) -> None:
    for finding in results.findings:
        _finding(finding, console)
    console.print()
    if {each.bar.study for each in judged} & {finding.name for finding in results.findings}:
        console.print(_table(bars_grid(judged)))
    if sentence := summary(judged):
        console.print(f" {sentence}.", highlight=False)
    if results.quick:
        console.print(" A quick run only checks that everything works. Its figures mean nothing.", style="yellow")


def _finding(finding: Finding, console: Console) -> None:
    console.print()
    console.rule(f"[bold]{escape(finding.title)}", align="left")
    if finding.failed:
        console.print(f" failed: {finding.failed}", style="red", highlight=False, markup=False)
    for table in finding.tables:
        console.print(_table(table_grid(table)))
    for note in finding.notes:
        console.print(Padding(Text(f"· {note}", style="dim"), (0, 1)))


def _table(grid: Grid) -> Table:
    title, caption = escape(grid.title), escape(grid.note) or None
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", box=None)
    table.add_column("")
    for head in grid.heads:
        table.add_column(escape(head), justify="right" if head else "left")
    for row in grid.rows:
        table.add_row(*map(_text, row))
    return table


def _text(cell: Cell) -> Text:
    return Text.assemble((cell.text, cell.style), (f"\n{cell.aside}" if cell.aside else "", "dim"))
