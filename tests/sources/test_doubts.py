"""Rows that cannot be used are logged once, with their field and without whose they are."""

from __future__ import annotations

from typing import Any

import pytest
import structlog.testing

from cashier.fanout.failure_log import ReasonLog
from cashier.sources import doubts
from tests.sources.test_sources import SOURCES, answer_of, parsed


@pytest.fixture(autouse=True)
def _no_earlier_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doubts,
        "_reasons",
        ReasonLog(lambda **fields: doubts._log.warning("a row of an answer cannot be used", **fields)),
    )


@pytest.mark.parametrize(
    ("source", "rows", "changes", "reason"),
    [
        ("card", "cards", {"status": "NORMAL"}, "a card: status is 'NORMAL', so it is undetermined"),
        ("card", "agreements", {"status": "SIGNED"}, "an agreement: status is 'SIGNED', so it is undetermined"),
        ("balance", "accounts", {"status": "NORMAL"}, "an account: status is 'NORMAL', so it is undetermined"),
        ("channel", "channels", {"status": "UP"}, "a channel: status is 'UP', so its methods are undetermined"),
        (
            "quota",
            "quotas",
            {"scope": {"kind": "quick"}},
            "a quota: scope.kind is 'quick', so the methods",
        ),
        (
            "quota",
            "quotas",
            {"single": None, "daily": None, "monthly": None},
            "a quota: every limit (single, da",
        ),
        ("marketing", "promotions", {"kinds": ["quick"]}, "a promotion: kinds is 'quick', so it never applies"),
        (
            "marketing",
            "promotions",
            {"amount_off": None, "percent_off_bps": None},
            "a promotion: amount_off or",
        ),
        ("marketing", "boosts", {"kind": "quick"}, "a boost: kind is 'quick', so it has no effect"),
    ],
)
async def test_an_odd_row_is_logged_once(source: str, rows: str, changes: dict[str, Any], reason: str) -> None:
    answer = await answer_of(source)
    odd = {**answer, rows: [answer[rows][0] | changes, *answer[rows][1:]]}
    with structlog.testing.capture_logs() as entries:
        for _ in range(5):
            assert not isinstance(parsed(SOURCES[source], odd), Exception)
            assert not isinstance(parsed(SOURCES[source], answer), Exception)
    (line,) = entries
    assert line["event"] == "a row of an answer cannot be used"
    assert line["source"] == source
    assert line["reason"].startswith(reason)
    assert "u_1" not in str(line)


async def test_a_long_value_is_cut() -> None:
    answer = await answer_of("balance")
    odd = {**answer, "accounts": [answer["accounts"][0] | {"status": "x" * 5_000}]}
    with structlog.testing.capture_logs() as entries:
        parsed(SOURCES["balance"], odd)
    assert len(entries[0]["reason"]) < 120
