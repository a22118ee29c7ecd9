"""The README's tables have every flag and verdict."""

from __future__ import annotations

import re
from pathlib import Path

import cashier.telemetry
from cashier.fanout.timeline import Flag
from cashier.telemetry.records import Verdict

TEXT = (Path(cashier.telemetry.__file__).parent / "README.md").read_text("utf-8")


def test_every_flag_is_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w\w)` \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert rows == [(flag.value, flag.name) for flag in Flag]


def test_every_verdict_is_in_the_table() -> None:
    rows = re.findall(r"^\| `([A-Z]{3,})` \|", TEXT, re.MULTILINE)
    assert rows == [verdict.value for verdict in Verdict if verdict is not Verdict.SAMPLED]
