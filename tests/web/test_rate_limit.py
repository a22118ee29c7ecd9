"""Rates of users and merchants."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.web import app
from cashier.web.problem import RequestRefused
from cashier.web.rate_limit import CallerLimits, LimitSettings, RateLimit, limit_faults
from tests.web.asgi_client import JSON, call
from tests.web.fake_payments import BODY as SUBMIT
from tests.web.fake_payments import FakePayments
from tests.web.fake_service import BODY, FakeService


class Owned:
    order_id = "o_1"

    def __init__(self, user_id: str | None, merchant_id: str) -> None:
        self.user_id = user_id
        self.merchant_id = merchant_id


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(st.integers(1, 20), st.floats(0.1, 100), st.lists(st.floats(0, 30), max_size=60))
def test_no_window_has_more_than_twice_its_share_and_a_patient_caller_is_never_refused(
    most: int, window_s: float, gaps: list[float]
) -> None:
    clock = Clock()
    limit = RateLimit(most, window_s, clock)
    admitted: list[float] = []
    for gap in gaps:
        clock.now_s += gap
        wait_s = limit.wait_s("u_1")
        if wait_s:
            assert 0 < wait_s <= window_s
            clock.now_s += wait_s
        assert limit.admits("u_1"), "the wait that it names is enough"
        admitted.append(clock.now_s)
    for index, begin in enumerate(admitted):
        within = sum(begin <= at < begin + window_s - 1e-4 for at in admitted[index:])
        assert within <= 2 * most


def test_what_is_refused_counts_for_nothing() -> None:
    clock = Clock()
    limit = RateLimit(2, 10, clock)
    assert [limit.admits("u_1") for _ in range(5)] == [True, True, False, False, False]
    assert limit.admits("u_2")
    clock.now_s += 5
    assert [limit.admits("u_1") for _ in range(2)] == [True, False]


def test_the_memory_of_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.web.rate_limit._MOST_CALLERS", 3)
    limit = RateLimit(1, 10, Clock())
    for number in range(10):
        limit.admits(f"u_{number}")
    assert repr(limit) == "<RateLimit callers=3>"


def test_a_user_who_asks_too_often_uses_up_nothing_of_the_merchants() -> None:
    limits = CallerLimits(LimitSettings(user_rate=0.1, merchant_rate=0.3, burst_s=10), Clock())
    limits.admit(Owned("u_1", "m_1"))
    for _ in range(5):
        with pytest.raises(RequestRefused, match="This user"):
            limits.admit(Owned("u_1", "m_1"))
    limits.admit(Owned(None, "m_1"))
    limits.admit(Owned("u_2", "m_1"))
    with pytest.raises(RequestRefused, match="This merchant"):
        limits.admit(Owned("u_3", "m_1"))
    limits.admit(Owned("u_3", "m_2"))


async def test_consultations_and_submits_share_a_limit_and_are_refused_in_the_payers_language() -> None:
    limits = CallerLimits(LimitSettings(user_rate=0.2, burst_s=10), Clock())
    application = app(FakeService(FakePayments()), limits=limits)
    submit: dict[str, Any] = {"path": "/v1/payments", "headers": JSON | {"idempotency-key": "k-1"}}
    assert (await call(application, BODY)).status == 200
    assert (await call(application, SUBMIT, **submit)).status in (200, 202)
    for body, options in ((BODY, {}), (SUBMIT, submit)):
        refused = await call(application, body, **options)
        assert refused.problem() == (429, "RATE_LIMITED")
        assert refused.headers["retry-after"] == "5"
    chinese = json.dumps({**json.loads(BODY), "locale": "zh-CN"}).encode()
    assert (await call(application, chinese)).json["title"] == "操作过于频繁"
    other = BODY.replace(b"u_1", b"u_2")
    assert (await call(application, other)).status == 200


def test_a_limit_that_permits_nothing_is_a_fault() -> None:
    assert list(limit_faults(LimitSettings())) == []
    assert list(limit_faults(LimitSettings(user_rate=0.01, burst_s=100))) == []
    (fault,) = limit_faults(LimitSettings(user_rate=0.01))
    assert fault == "[limits] user_rate = 0.01 permits not even one in burst_s = 10: burst_s must be at least 100"
