"""Terminal layout: tables, lists, paragraphs and commands that fit a width.

Widths are terminal cells, so a CJK character counts as two. A line ends with its last character,
without padding. Only an address, a token or another text without spaces may be wider than the
terminal: it must stay whole to be copied.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

PIPE_WIDTH = 140
_GAP = 2
_LEAST_DEFINITION = 24
# `Text.wrap` takes a console and uses none of it when the overflow is given.
_WRAPPER = Console(width=PIPE_WIDTH)


class Column(NamedTuple):
    """A column of `table`. `heading` may have several lines.

    `least`: cells to which a column that wraps may shrink; 0: it keeps the width of its text.
    `detail`: moves to lines below the row where the row is too wide, with `label` before its text.
    """

    heading: str
    right: bool = False
    least: int = 0
    detail: bool = False
    label: str = ""


def terminal() -> Console:
    """A console as wide as the terminal or COLUMNS; a pipe without COLUMNS gets `PIPE_WIDTH`."""
    console = Console(highlight=False)
    known = console.is_terminal or "COLUMNS" in os.environ
    return console if known else Console(highlight=False, width=PIPE_WIDTH)


def write(console: Console, lines: Iterable[Text]) -> None:
    """Print lines that are laid out already."""
    for line in lines:
        console.print(line, soft_wrap=True)


def one_line(text: str) -> str:
    """Text from an upstream, without line breaks, tabs, and characters that control a terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in " ".join(text.split()))


def paragraph(text: Text, width: int, indent: int = 0, hanging: int = 0) -> Iterator[Text]:
    """`text` wrapped to `width`. Lines after the first begin `hanging` cells right of `indent`."""
    first = _wrap(text, width - indent)[0]
    yield Text.assemble(" " * indent, first)
    rest = text[len(first) :]
    rest = rest[len(rest) - len(rest.plain.lstrip()) :]
    if rest:
        for line in _wrap(rest, width - indent - hanging):
            yield Text.assemble(" " * (indent + hanging), line)


def table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int, indent: int = 1) -> Iterator[Text]:
    """Rows under a heading. An empty row is an empty line.

    If the rows are too wide, detail columns move below their row, the last one first; then a column
    that may wrap shrinks. Text is never cut.
    """
    widths = [
        max([*map(cell_len, column.heading.split("\n")), *(cell_len(row[place].plain) for row in rows if row)])
        for place, column in enumerate(columns)
    ]
    shown = _shown(columns, widths, width - indent)
    widths = _shrunk(columns, widths, shown, width - indent)
    if any(columns[place].heading for place in shown):
        headings = [Text(column.heading, style="dim") for column in columns]
        yield from _row(columns, headings, widths, shown, indent)
    below = [place for place in range(len(columns)) if place not in shown]
    # Below a row, details begin where its first column that may wrap does.
    start = next((place for place in shown if columns[place].least), 0)
    deeper = indent + sum(widths[place] + _GAP for place in shown if place < start) + (0 if start else _GAP)
    for row in rows:
        if not row:
            yield Text()
            continue
        yield from _row(columns, row, widths, shown, indent)
        details = [Text.assemble((columns[place].label, "dim"), row[place]) for place in below if row[place].plain]
        if details:
            yield from paragraph(Text("  ").join(details), width, deeper)


def _shown(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """The columns that stay in the row."""
    shown = list(range(len(columns)))
    for place in reversed(range(len(columns))):
        last = shown[-1]
        least = min(widths[last], columns[last].least or widths[last]) if columns[last].detail else widths[last]
        if sum(widths[each] + _GAP for each in shown[:-1]) + least <= width:
            break
        if columns[place].detail:
            shown.remove(place)
    return shown


def _shrunk(columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], width: int) -> list[int]:
    """The widths when columns that may wrap make room, from the last."""
    shrunk = list(widths)
    excess = sum(widths[place] + _GAP for place in shown) - _GAP - width
    for place in reversed(shown):
        if excess > 0 and columns[place].least:
            smaller = max(min(columns[place].least, widths[place]), widths[place] - excess)
            excess -= widths[place] - smaller
            shrunk[place] = smaller
    return shrunk


def _row(
    columns: Sequence[Column], row: Sequence[Text], widths: Sequence[int], shown: Sequence[int], indent: int
) -> Iterator[Text]:
    cells = [_wrap(row[place], widths[place]) if columns[place].least else row[place].split("\n") for place in shown]
    for parts in zip_longest(*cells, fillvalue=Text()):
        line = Text(" " * indent)
        for place, part in zip(shown, parts, strict=True):
            free = " " * (widths[place] - cell_len(part.plain))
            line.append_text(Text.assemble(free, part) if columns[place].right else Text.assemble(part, free))
            line.append(" " * _GAP)
        line.rstrip()
        yield line


def definitions(pairs: Sequence[tuple[str, str]], width: int) -> Iterator[Text]:
    """A term and its text in a line; where that leaves too little room, the text below its term."""
    longest = max(cell_len(term) for term, _ in pairs)
    start = longest + _GAP if longest + _GAP + _LEAST_DEFINITION <= width else 0
    for term, text in pairs:
        name = Text(term, style="bold")
        lines = list(paragraph(Text(text), width, start or _GAP))
        if start:
            lines[0] = Text.assemble(name, " " * (start - cell_len(term)), lines[0].plain.strip())
        else:
            yield name
        yield from lines


def command(words: Sequence[str], width: int, indent: int = 2) -> Iterator[Text]:
    """A shell command to copy, continued after a backslash where too wide. Keeps `words` whole."""
    line = " " * indent + " ".join(words)
    if cell_len(line) <= width:
        yield Text(line)
        return
    line = ""
    for word in words:
        longer = f"{line} {word}" if line else " " * indent + word
        if line and cell_len(longer) > width - 2:
            yield Text(line + " \\")
            longer = " " * (indent + 4) + word
        line = longer
    yield Text(line)


def _wrap(text: Text, width: int) -> list[Text]:
    if cell_len(text.plain) <= width:
        return [text]
    lines = list(text.wrap(_WRAPPER, max(1, width), overflow="fold"))
    for line in lines:
        line.rstrip()
    # A folded word of wide characters that ends at the margin can leave a line with its space only.
    return [line for line in lines if line]
