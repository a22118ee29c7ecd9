"""Walk-in payers, in virtual time: no source about a payer is asked, and nothing misses it."""

from __future__ import annotations

from contextlib import aclosing
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.consultation.answer import Consultation, RequiredSourceUnavailable
from cashier.consultation.flow import ConsultSettings
from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS
from cashier.domain.order import Blocked, ConsultRequest, Product
from cashier.domain.pay_method import Availability
from cashier.fanout.ask import SourceStatus
from cashier.sandbox import CASES
from cashier.tokens.token_service import TokenService
from cashier.wire.transport import CallHeaders
from tests.consultation.test_flow import any_behaviour, statuses
from tests.support.virtual_consultation import NEVER_MS, Behaviour, ConsultOutcome, ask, flow_over, request
from tests.support.virtual_time import run_in_virtual_time

ABOUT_PAYERS = {"member", "card", "balance", "quota", "marketing"}
OTHERS = set(SOURCE_NAMES) - ABOUT_PAYERS
HANGS = Behaviour(NEVER_MS)


def consult(behaviours: dict[str, Behaviour] | None = None, case: str = "walk_in", **fields: Any) -> ConsultOutcome:
    return run_in_virtual_time(ask(behaviours or {}, request(case, **fields)))


def answer(outcome: ConsultOutcome) -> Consultation:
    assert isinstance(outcome.consultation, Consultation), outcome.consultation
    return outcome.consultation


def test_the_sources_about_payers_are_those_that_need_a_user() -> None:
    assert {spec.source.name for spec in SOURCE_SPECS if "user_id" in spec.needs} == ABOUT_PAYERS
    assert {spec.source.name for spec in SOURCE_SPECS if spec.unasked is not None} == ABOUT_PAYERS


@pytest.mark.parametrize("claims", [{}, {"amount": None, "country": None}], ids=["claimed", "not claimed"])
def test_a_walk_in_is_offered_the_codes_and_asks_no_source_about_payers(claims: dict[str, Any]) -> None:
    outcome = consult(**claims)
    consultation = answer(outcome)
    assert outcome.calls == dict.fromkeys(OTHERS, 1)
    assert (consultation.payable, consultation.degraded, consultation.blocked) == (True, False, None)
    available = [method for method in consultation.methods if method.availability is Availability.AVAILABLE]
    assert {method.kind for method in available} == {"MERCHANT_QR", "CONSUMER_QR"}
    assert {method.availability for method in consultation.methods} == {
        Availability.AVAILABLE,
        Availability.UNAVAILABLE,
    }
    reports = {report.name: report for report in consultation.sources}
    assert {name for name, report in reports.items() if report.status is SourceStatus.SKIPPED} == ABOUT_PAYERS
    assert all(reports[name].elapsed_ms == 0 for name in ABOUT_PAYERS)


def test_a_walk_in_waits_for_no_source_about_payers() -> None:
    outcome = consult(dict.fromkeys(ABOUT_PAYERS, HANGS))
    assert outcome.after_ms < 2
    assert not answer(outcome).degraded


def test_a_walk_ins_prices_are_without_promotions() -> None:
    for method in answer(consult()).methods:
        assert method.amount is None or method.amount.discounts == ()


@given(st.dictionaries(st.sampled_from(sorted(SOURCE_NAMES)), any_behaviour))
def test_whatever_sources_do_a_walk_in_gets_what_the_asked_ones_allow(behaviours: dict[str, Behaviour]) -> None:
    """The behaviour of sources about payers changes nothing."""
    asked = {name: behaviour for name, behaviour in behaviours.items() if name in OTHERS}
    outcome, same = consult(behaviours), consult(asked)
    assert not ABOUT_PAYERS & set(outcome.calls)
    assert type(outcome.consultation) is type(same.consultation)
    if isinstance(outcome.consultation, Consultation):
        assert outcome.consultation.methods == answer(same).methods
        assert statuses(outcome.consultation) == statuses(answer(same))


@pytest.mark.parametrize("name", sorted(OTHERS - {"channel"}))
def test_a_walk_in_still_needs_order_and_merchant(name: str) -> None:
    failed = consult({name: HANGS}).consultation
    assert isinstance(failed, RequiredSourceUnavailable)
    assert failed.failed == (name,)


def test_a_named_user_at_the_same_till_still_needs_the_member() -> None:
    failed = consult({"member": HANGS}, user_id="u_1").consultation
    assert isinstance(failed, RequiredSourceUnavailable)
    assert failed.failed == ("member",)


def test_silent_channels_leave_a_walk_ins_codes_undetermined() -> None:
    methods = answer(consult({"channel": HANGS})).methods
    assert {method.kind for method in methods if method.availability is Availability.UNDETERMINED} == {
        "MERCHANT_QR",
        "CONSUMER_QR",
    }


def test_an_order_with_a_user_is_another_partys_to_a_walk_in() -> None:
    for case in ("chinese_shop", "order_paid"):
        body = {**CASES[case].request, "product": "SCAN", "terminal": "POS"}
        del body["user_id"]
        outcome = run_in_virtual_time(ask({}, msgspec.convert(body, ConsultRequest)))
        consultation = answer(outcome)
        assert consultation.blocked is not None
        assert consultation.blocked.code is Blocked.ORDER_USER_MISMATCH
        assert (consultation.order.title, consultation.order.amount.value, consultation.methods) == ("", 0, ())


def test_a_guest_order_of_another_product_is_not_a_walk_ins() -> None:
    consultation = answer(consult(case="guest_order", user_id=None, product="SCAN"))
    assert consultation.blocked is not None
    assert consultation.blocked.code is Blocked.PRODUCT_MISMATCH


@pytest.mark.parametrize("named", [each for each in Product if each is not Product.SCAN])
def test_only_scan_may_leave_the_user_out(named: Product) -> None:
    with pytest.raises(msgspec.ValidationError, match="user_id is required unless product is SCAN"):
        request("guest_order", user_id=None, product=named)


@pytest.mark.parametrize("user_id", ["", " ", "u 1"])
def test_an_empty_user_is_no_walk_in(user_id: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="user_id"):
        request("walk_in", user_id=user_id)


def test_the_token_of_a_walk_in_names_no_user() -> None:
    token = answer(consult()).consult_token
    assert TokenService(["s" * 32]).read_consult_token(token).user_id is None


@pytest.mark.parametrize(("slow", "claimed"), list(product([None, *sorted(OTHERS)], [True, False])))
def test_a_stream_to_a_walk_in_ends_as_its_call(slow: str | None, *, claimed: bool) -> None:
    behaviours = {} if slow is None else {slow: Behaviour(40)}
    asked = request("walk_in", **({} if claimed else {"amount": None, "country": None}))

    async def streamed() -> list[Consultation]:
        flow = flow_over(behaviours, {}, ConsultSettings())
        async with aclosing(flow.stream(asked, CallHeaders("test"))) as answers:
            return [each async for each in answers]

    last = run_in_virtual_time(streamed())[-1]
    whole = answer(run_in_virtual_time(ask(behaviours, asked)))
    assert (last.methods, last.degraded, statuses(last)) == (whole.methods, False, statuses(whole))
