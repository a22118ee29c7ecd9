"""Tables of the results as cells of plain text, for the page; and all results on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.performance_targets import BarResult, Verdict, limit_text, summary
from benchmarks.results import Figure, Finding, Results, Table

_STYLES = {Verdict.MET: "green", Verdict.MISSED: "red", Verdict.NOT_MEASURED: "dim"}


class Cell(NamedTuple):
    """`aside`: below it, less prominent. `style`: a colour of the terminal and of the page."""

    text: str = ""
    aside: str = ""
    style: str = ""


class Grid(NamedTuple):
    """The first cell of a row is its label. `heads`: of the other columns."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def table_grid(table: Table) -> Grid:
    """Columns in the order in which the rows first name them, and the notes of the rows, if any."""
    names = list(dict.fromkeys(name for row in table.rows for name in row.figures))
    noted = any(row.note for row in table.rows)
    rows = [
        [Cell(row.label), *(_figure(row.figures.get(name)) for name in names), *([Cell(row.note)] if noted else [])]
        for row in table.rows
    ]
    return Grid(table.title, [*names, *([""] if noted else [])], rows, table.note)


def bars_grid(judged: Sequence[BarResult]) -> Grid:
    note = (
        "A bar is the limit that must hold; the goal is the target. The median of the rounds counts unless the bar "
        "says otherwise, rounded against us."
    )
    return Grid("Bars", ("bar", "found", "", "goal"), [_bar(each) for each in judged], note)


def format_number(value: float, digits: int = 4) -> str:
    """Format with `digits` significant digits and without an exponent from 1e-4 up."""
    if value == int(value) or abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    elif abs(value) < 1e-4:
        text = f"{value:.1e}"
    else:
        text = f"{float(f'{value:.{digits}g}'):,.{digits}g}"
    return text.replace("-", "−", 1)


def format_spread(figure: Figure) -> str:
    """The lowest and the highest round, or an empty string if they are equal."""
    return "" if figure.low == figure.high else f"{format_number(figure.low, 3)} to {format_number(figure.high, 3)}"


def _figure(figure: Figure | None) -> Cell:
    return Cell() if figure is None else Cell(format_number(figure.median), format_spread(figure))


def _bar(judged: BarResult) -> list[Cell]:
    bar, unsure = judged.bar, "not in every round" if judged.spans_bar else ""
    return [
        Cell(bar.what),
        Cell(limit_text(bar, bar.now)),
        Cell(judged.value_text, judged.spread),
        Cell(judged.why or judged.verdict.value, unsure, "yellow" if unsure else _STYLES[judged.verdict]),
        Cell(limit_text(bar, bar.goal), judged.distance),
    ]


def show(results: Results, judged: Sequence[BarResult], console: Console) -> None:
    for finding in results.findings:
        _finding(finding, console)
    console.print()
    if {each.bar.study for each in judged} & {finding.name for finding in results.findings}:
        console.print(_terminal_table(bars_grid(judged)))
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
        console.print(_terminal_table(table_grid(table)))
    for note in finding.notes:
        console.print(Padding(Text(f"· {note}", style="dim"), (0, 1)))


def _terminal_table(grid: Grid) -> RichTable:
    title, caption = escape(grid.title), escape(grid.note) or None
    table = RichTable(title=title, title_justify="left", caption=caption, caption_justify="left", box=None)
    table.add_column("")
    for head in grid.heads:
        table.add_column(escape(head), justify="right" if head else "left")
    for row in grid.rows:
        table.add_row(*map(_text, row))
    return table


def _text(cell: Cell) -> Text:
    return Text.assemble((cell.text, cell.style), (f"\n{cell.aside}" if cell.aside else "", "dim"))
