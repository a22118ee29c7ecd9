"""Poll schedules of payments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain import poll_schedule
from cashier.domain.kinds import KINDS
from cashier.domain.pay_method import Kind
from cashier.domain.poll_schedule import PollSchedule, poll_after_ms

SCHEDULES = [
    poll_schedule.PROMPT,
    poll_schedule.CONFIRMING,
    poll_schedule.LATE,
    *(KINDS[kind].poll_schedule for kind in Kind),
]


def steps(schedule: PollSchedule, count: int) -> list[int]:
    """The waits of a caller that follows the schedule."""
    waits_ms: list[int] = []
    for _ in range(count):
        waits_ms.append(poll_after_ms(schedule, sum(waits_ms) / 1_000))
    return waits_ms


def test_at_a_counter_polls_come_after_one_two_three_and_then_every_five_seconds() -> None:
    assert steps(KINDS[Kind.CONSUMER_QR].poll_schedule, 11) == [1_000, 2_000, 3_000] + [5_000] * 8
    assert sum(steps(KINDS[Kind.CONSUMER_QR].poll_schedule, 10)) < poll_schedule.ATTENDED_S * 1_000


@pytest.mark.parametrize("kind", [Kind.NET_BANKING, Kind.WALLET, Kind.CARD, Kind.MERCHANT_QR])
def test_a_payment_on_another_page_is_polled_every_two_seconds_at_first(kind: Kind) -> None:
    assert steps(KINDS[kind].poll_schedule, 3) == [2_000, 2_000, 2_000]


@pytest.mark.parametrize("kind", [Kind.VA, Kind.OTC])
def test_a_payment_at_a_bank_or_a_shop_is_polled_every_minute(kind: Kind) -> None:
    assert steps(KINDS[kind].poll_schedule, 2) == [60_000, 60_000]
    assert poll_after_ms(KINDS[kind].poll_schedule, 86_400) == 180_000


@given(st.sampled_from(SCHEDULES), st.floats(-10, 10**6), st.floats(0, 10**6))
def test_a_schedule_never_gets_faster_and_never_stops(schedule: PollSchedule, elapsed_s: float, later_s: float) -> None:
    sooner, later = poll_after_ms(schedule, elapsed_s), poll_after_ms(schedule, elapsed_s + later_s)
    assert 1_000 <= sooner <= later <= 180_000
