"""Each metric has a test that it moves when its thing happens, and only then: one marked so."""

from __future__ import annotations

import re
from pathlib import Path

from cashier.metrics.families import FAMILIES

TESTS = Path(__file__).parent.parent
# Of a test: the names are literals, one mark may have several.
MARK = re.compile(r"^@pytest\.mark\.moves\(([^)]+)\)$", re.MULTILINE)


def test_each_metric_is_seen_to_move() -> None:
    marks = [mark for file in TESTS.rglob("test_*.py") for mark in MARK.findall(file.read_text("utf-8"))]
    assert {name.strip(' "\n') for mark in marks for name in mark.rstrip(",\n ").split(",")} == set(FAMILIES)
