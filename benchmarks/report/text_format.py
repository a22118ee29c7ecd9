"""Figures and tables as plain text, for the page and the terminal."""

from __future__ import annotations

from benchmarks.results import Figure, Table


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
    low, high = format_number(figure.low, 3), format_number(figure.high, 3)
    return "" if figure.low == figure.high else f"{low} to {high}"


def column_names(table: Table) -> list[str]:
    """Columns in the order in which the rows first name them."""
    return list(dict.fromkeys(name for row in table.rows for name in row.figures))
