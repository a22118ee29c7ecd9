"""Figures and tables in plain characters, the same on the page and on the terminal."""

from __future__ import annotations

from benchmarks.results import Figure, Table


def plain(value: float, digits: int = 4) -> str:
    """So many significant digits, and never an exponent for what a table holds; whole numbers stay whole."""
    if value == int(value) or abs(value) >= 10 ** (digits - 1):
        told = f"{value:,.0f}"
    elif abs(value) < 1e-4:
        told = f"{value:.1e}"
    else:
        told = f"{float(f'{value:.{digits}g}'):,.{digits}g}"
    return told.replace("-", "−", 1)


def spread_of(figure: Figure) -> str:
    """The lowest and the highest round; empty where they are the same."""
    low, high = plain(figure.low, 3), plain(figure.high, 3)
    return "" if figure.low == figure.high else f"{low} to {high}"


def columns(table: Table) -> list[str]:
    """In the order in which the rows first name them."""
    return list(dict.fromkeys(name for row in table.rows for name in row.figures))
