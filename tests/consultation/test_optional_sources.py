"""An ENRICHING source that is not configured: no call, no row in the answer, no degradation."""

from __future__ import annotations

import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.consultation.answer import Consultation
from cashier.consultation.plan_report import plan_report
from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS, consultation_plan
from cashier.core import Cashier
from cashier.domain.facts import Facts
from cashier.domain.order import ConsultRequest
from cashier.domain.pay_method import Availability
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_state import PaymentStatus
from cashier.fanout.ask import Importance
from cashier.fanout.l2.interface import SourceUnknown
from cashier.payments.errors import ConsultChanged
from cashier.sandbox import CASES, World, serve, weather_named
from cashier.settings.loader import configuration
from cashier.source_errors import Missing, MissingCause
from tests.consultation.test_flow import any_behaviour, cases, methods_by_id, statuses
from tests.payments.checkout import cached_configuration, checkout
from tests.support.virtual_consultation import Behaviour, ask, request
from tests.support.virtual_time import run_in_virtual_time

OPTIONAL = [spec.source.name for spec in SOURCE_SPECS if spec.importance is Importance.ENRICHING]
ESSENTIAL = [name for name in SOURCE_NAMES if name not in OPTIONAL]
SERVICES = ("risk", "engine", "acquirer")

some_optional = st.sets(st.sampled_from(OPTIONAL))
essential_behaviours = st.dictionaries(st.sampled_from(ESSENTIAL[3:]), any_behaviour)


def consult(absent: set[str], behaviours: dict[str, Behaviour] | None = None, case: str = "chinese_shop") -> Any:
    outcome = run_in_virtual_time(ask(behaviours or {}, request(case), absent=absent))
    assert isinstance(outcome.consultation, Consultation)
    assert not absent & set(outcome.calls)
    return outcome.consultation


def test_each_row_of_the_table_has_a_fact_and_the_optional_ones_a_default() -> None:
    fields = {field.name: field for field in msgspec.structs.fields(Facts)}
    assert set(fields) == set(SOURCE_NAMES)
    assert [name for name, field in fields.items() if not field.required] == OPTIONAL
    for name in OPTIONAL:
        assert fields[name].default == Missing("", MissingCause.NOT_CONFIGURED)
        assert Missing in typing.get_args(typing.get_type_hints(Facts)[name])


def test_a_plan_without_a_required_or_gating_source_is_a_bug() -> None:
    with pytest.raises(KeyError, match="order"):
        consultation_plan({})


@given(some_optional, cases)
def test_an_absent_source_degrades_nothing(absent: set[str], case: str) -> None:
    consultation = consult(absent, case=case)
    assert not consultation.degraded
    assert [report.name for report in consultation.sources] == [name for name in SOURCE_NAMES if name not in absent]
    assert all(method.availability is not Availability.UNDETERMINED for method in consultation.methods)


@given(some_optional, essential_behaviours, cases)
def test_an_absent_source_offers_what_a_silent_one_does(
    absent: set[str], behaviours: dict[str, Behaviour], case: str
) -> None:
    silent = consult(set(), behaviours | dict.fromkeys(absent, Behaviour(1, "unreachable")), case)
    consultation = consult(absent, behaviours, case)
    assert consultation.methods == silent.methods
    assert statuses(consultation) == {name: status for name, status in statuses(silent).items() if name not in absent}
    if absent and "user_id" in CASES[case].request:
        assert silent.degraded


def table(*names: str, url: str = "http://127.0.0.1:9", **other: Any) -> dict[str, Any]:
    return {"sources": {name: {"url": url} for name in names}, "tokens": {"secrets": ["s" * 32]}, **other}


def test_the_plan_report_covers_the_configured_sources() -> None:
    cashier = Cashier(config=configuration(table(*ESSENTIAL), ""))
    report = plan_report(cashier.plan, cashier.config.settings)
    assert [line.name for line in report.lines] == ESSENTIAL
    assert (report.usual_calls, report.worst_calls) == (len(ESSENTIAL), 2 * len(ESSENTIAL))


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_absent_source_has_nothing_to_invalidate(name: str) -> None:
    cashier = Cashier(config=configuration(table(*ESSENTIAL), ""))
    with pytest.raises(SourceUnknown) as unknown:
        cashier.invalidate(name, key="u_1")
    assert ", ".join(ESSENTIAL) in str(unknown.value)
    assert cashier.invalidate("card", key="u_1").dropped == 0
    cashier._drop_cached(name, "u_1", None)  # an invalidation of a worker that has the source


@pytest.mark.parametrize("name", OPTIONAL)
def test_to_add_or_remove_a_source_takes_a_restart(name: str) -> None:
    others = [other for other in SOURCE_NAMES if other != name]
    with_it, without = (configuration(table(*names), "") for names in (SOURCE_NAMES, others))
    for before, after in ((with_it, without), (without, with_it)):
        cashier = Cashier(config=before)
        planned = [ask.name for ask in cashier.plan.asks]
        assert cashier.reload(after) == (f"[sources.{name}] was added or removed",)
        assert [ask.name for ask in cashier.plan.asks] == planned


@pytest.mark.virtual_time
async def test_a_discount_whose_source_was_removed_is_a_change_and_no_silence() -> None:
    async with checkout() as shop:
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        assert request.promotion_ids
        functions = {name: shop._source(name) for name in ESSENTIAL} | dict.fromkeys(SERVICES, shop._service)
        async with Cashier(sources=functions, config=cached_configuration(), clock=shop.world.clock) as without:
            with pytest.raises(ConsultChanged) as changed:
                await shop.payments_of(without).submit(request, "k1")
        assert {change.what.value for change in changed.value.changes} == {"PROMOTION_GONE", "PRICE_CHANGED"}
        assert not changed.value.consultation.degraded


async def test_without_optional_sources_the_service_consults_and_pays_over_sockets() -> None:
    world = World()
    async with serve(port=0, world=world, weather=weather_named("still")) as port:
        patient = {"deadline_ms": 10_000, "max_deadline_ms": 10_000}
        config = table(
            *ESSENTIAL, *SERVICES, url=f"http://127.0.0.1:{port}", consult=patient, accept={"check_ms": 9_000}
        )
        for name in ESSENTIAL:
            config["sources"][name]["timeout_ms"] = 9_000
        async with Cashier(config=configuration(config, "")) as cashier:
            assert cashier.payments is not None
            body = CASES["balance_is_enough"].request
            consultation = await cashier.consult(msgspec.convert(body, ConsultRequest))
            assert not consultation.degraded
            assert set(statuses(consultation)) == set(ESSENTIAL)
            method = methods_by_id(consultation)["BALANCE:acc_1"]
            assert method.amount is not None
            payment = {
                "method_id": method.method_id,
                "expected_payable": msgspec.to_builtins(method.amount.payable),
                "consult_token": consultation.consult_token,
            }
            names = ("order_id", "user_id", "merchant_id", "product", "terminal")
            submitted = await cashier.payments.submit(
                msgspec.convert({name: body[name] for name in names} | payment, PaymentRequest), "k1"
            )
    assert submitted.status is PaymentStatus.SUCCEEDED
    assert world.audit() == []
