"""The results as tables on a terminal or as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from benchmarks.performance_targets import BarResult, Verdict, limit_text, summary
from benchmarks.report.text_format import column_names, format_number, format_spread
from benchmarks.results import Figure, Finding, Results, Table

_STYLES = {Verdict.MET: "green", Verdict.MISSED: "red", Verdict.NOT_MEASURED: "dim"}

_WIDE = 130


def show(results: Results, judged: Sequence[BarResult], console: Console) -> None:
    for finding in results.findings:
        _finding(finding, console)
    console.print()
    if {each.bar.study for each in judged} & {finding.name for finding in results.findings}:
        console.print(_bars(judged, console.width >= _WIDE))
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
        console.print(_table(table))
    for note in finding.notes:
        console.print(Padding(Text(f"· {note}", style="dim"), (0, 1)))


def _table(table: Table) -> Grid:
    grid = Grid(
        title=escape(table.title),
        title_justify="left",
        caption=escape(table.note) or None,
        caption_justify="left",
        box=None,
    )
    names = column_names(table)
    noted = any(row.note for row in table.rows)
    grid.add_column("")
    for name in names:
        grid.add_column(escape(name), justify="right")
    if noted:
        grid.add_column("", style="dim")
    for row in table.rows:
        notes = [Text(row.note)] if noted else []
        grid.add_row(Text(row.label), *(_cell(row.figures.get(name)) for name in names), *notes)
    return grid


def _cell(figure: Figure | None) -> Text:
    if figure is None:
        return Text()
    spread = format_spread(figure)
    return Text.assemble(format_number(figure.median), (f"\n{spread}" if spread else "", "dim"))


def _bars(judged: Sequence[BarResult], wide: bool) -> Grid:
    """A table of the bars. Narrow terminals get no spread and no goals."""
    grid = Grid(title="Bars", title_justify="left", box=None)
    grid.add_column("what", ratio=1)
    for name in ("bar", "found", *(("spread",) if wide else ()), "", *(("goal", "distance") if wide else ())):
        grid.add_column(name, justify="right" if name else "left", no_wrap=True)
    for each in judged:
        text = each.why or f"{each.verdict.value}{', not in every round' if each.spans_bar else ''}"
        style = "yellow" if each.spans_bar else _STYLES[each.verdict]
        spread = (Text(each.spread, "dim"),) if wide else ()
        goal = (limit_text(each.bar, each.bar.goal), each.distance) if wide else ()
        grid.add_row(
            Text(each.bar.what), limit_text(each.bar, each.bar.now), each.value_text, *spread, Text(text, style), *goal
        )
    return grid
