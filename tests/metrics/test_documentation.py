"""The table in `cashier/ops/README.md` is the table of families.

`METRICS=write python -m pytest -n 0 tests/metrics/test_documentation.py` writes it again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cashier.metrics.families import FAMILIES, Family

PAGE = Path(__file__).parent.parent.parent / "cashier/ops/README.md"
BEGIN, END = "<!-- metrics -->\n", "<!-- end of metrics -->\n"


def row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "–"
    cells = (f"`{family.name}`", family.kind, labels, family.help, family.advice)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


def table() -> str:
    heading = "| metric | type | labels | meaning | what to do |\n|---|---|---|---|---|\n"
    return heading + "".join(map(row, FAMILIES.values()))


def test_the_readme_has_every_metric() -> None:
    text = PAGE.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    written = before + begin + table() + end + after
    if os.environ.get("METRICS") == "write":
        PAGE.write_text(written, "utf-8")
    assert PAGE.read_text("utf-8") == written


def test_names_and_units_are_prometheus_own() -> None:
    for family in FAMILIES.values():
        assert re.fullmatch(r"cashier(_[a-z]+)+", family.name)
        assert (family.kind == "counter") == family.name.endswith("_total")
        assert family.kind != "histogram" or family.name.endswith("_seconds")
        assert not {"le", "quantile", "job", "instance", "user", "user_id", "merchant", "merchant_id"} & set(
            family.labels
        )
        assert family.help.endswith(".")
        assert family.advice.endswith(".")
