"""The probe of a configuration: what each source was asked, answered, and what matches nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from cashier.probe import ProbeResult, probe
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.settings.loader import configuration
from cashier.source_errors import Unreachable
from tests.service.test_failures import answering

ORDER = {"order_id": "o_1001"}


class Answers:
    """The sandbox's answers as functions; `changed` answers replace them."""

    def __init__(self, **changed: Any) -> None:
        self.calls: list[str] = []
        self.functions = {
            name: self._function(name, changed) for name in LocalUpstreams(World(), weather_named("still"))
        }

    def _function(self, name: str, changed: dict[str, Any]) -> Any:
        sandbox = LocalUpstreams(World(), weather_named("still"))[name]

        async def answer(**inputs: Any) -> Any:
            self.calls.append(name)
            original = await sandbox(**inputs)
            if name not in changed:
                return original
            return changed[name](copy.deepcopy(original)) if callable(changed[name]) else changed[name]

        return answer


async def probed(answers: Answers, **known: Any) -> tuple[dict[str, ProbeResult], list[str]]:
    exchanges, findings = await probe(configuration({}, "a test"), {**ORDER, **known}, answers.functions)
    return {exchange.source: exchange for exchange in exchanges}, findings


async def test_each_source_is_asked_once_with_what_the_order_tells() -> None:
    answers = Answers()
    exchanges, findings = await probed(answers)
    assert sorted(answers.calls) == sorted(answers.functions)
    assert answers.calls[0] == "order"
    assert all(exchange.fault is None and not exchange.missing for exchange in exchanges.values())
    assert exchanges["card"].answer["cards"][0]["card_id"] == "c_1"
    assert len(exchanges["channel"].answer["channels"]) == 26
    assert len(exchanges["quota"].answer["quotas"]) == 7
    assert findings == []


async def test_an_order_without_a_user_leaves_out_what_needs_one() -> None:
    exchanges, _ = await probed(Answers(), order_id="o_1014")
    assert exchanges["card"].missing == ("user_id",)
    assert exchanges["channel"].fault is None


async def test_given_inputs_come_before_those_of_the_order() -> None:
    exchanges, _ = await probed(Answers(), user_id="u_2")
    assert exchanges["card"].answer["user_id"] == "u_2"


async def test_a_source_that_raises_or_hangs_has_a_fault_and_the_others_an_answer() -> None:
    async def broken(**_: Any) -> Any:
        raise Unreachable("no route")

    answers = Answers()
    answers.functions["quota"] = broken
    exchanges, _ = await probed(answers)
    assert exchanges["quota"].fault == "UNREACHABLE: no route"
    assert [name for name, exchange in exchanges.items() if exchange.fault] == ["quota"]


def row(source: str, name: str, **fields: Any) -> dict[str, Any]:
    """Change fields of the first row of a list in an answer."""

    def change(answer: Any) -> Any:
        answer[name][0] |= fields
        return answer

    return {source: change}


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        (row("card", "cards", bank="308"), "card bank '308' is no provider of a QUICK_PAY channel"),
        (row("card", "cards", bank="icbc"), "is no provider of a QUICK_PAY channel; did you mean 'ICBC'?"),
        (row("card", "agreements", channel_id="ch_x"), "agreement channel_id 'ch_x' is no channel"),
        (
            row("quota", "quotas", scope={"kind": "quick"}),
            "quota scope.kind 'quick' is no kind of payment method; did you mean 'QUICK_PAY'?",
        ),
        (row("quota", "quotas", scope={"kind": "WALLET", "bank": "308"}), "quota scope.bank '308' is no provider"),
        (
            row("quota", "quotas", scope={"kind": "WALLET", "card_id": "c_9"}),
            "scope.card_id 'c_9' is no card of the user",
        ),
        (
            row("quota", "quotas", single=None, daily=None, monthly=None),
            "a quota on QUICK_PAY has none of single, daily and monthly",
        ),
        (row("marketing", "promotions", kinds=["WALET"]), "promotion kinds 'WALET' is no kind of payment method; did"),
        (row("marketing", "promotions", banks=["CMBC"]), "promotion banks 'CMBC' is no provider of a channel; did you"),
        (row("marketing", "boosts", kind="CRYPTO"), "boost kind 'CRYPTO' is no kind of payment method"),
        (
            {"merchant": lambda answer: {**answer, "kinds": ["VA"]}},
            "merchant kinds has VA, but no channel is of this kind",
        ),
    ],
)
async def test_a_value_that_matches_nothing_is_listed_with_what_may_be_meant(
    changed: dict[str, Any], finding: str
) -> None:
    _, findings = await probed(Answers(**changed))
    assert any(finding in text for text in findings), findings


@pytest.mark.parametrize(
    ("source", "body", "finding"),
    [
        (
            "marketing",
            {
                "user_id": "u_1",
                "boosts": [],
                "promotions": [
                    {
                        "promotion_id": "p_1",
                        "type": "COUPON",
                        "title": "10 off",
                        "threshold": {"currency": "CNY", "value": 0},
                        "amount_off": {"currency": "CNY", "value": 1000},
                        "kinds": [],
                        "bank": ["CMB"],
                        "group": "g",
                        "stackable": True,
                    }
                ],
            },
            "marketing promotions[].bank is not in the contract; did you mean 'banks'?",
        ),
        (
            "quota",
            {
                "user_id": "u_1",
                "quotas": [{"scope": {"kind": "WALLET"}, "day": {"limit": {"currency": "CNY", "value": 1}}}],
                "trace": "x",
            },
            "quota quotas[].day is not in the contract; did you mean 'daily'?",
        ),
    ],
)
async def test_a_field_spelled_like_one_of_the_contract_is_listed(source: str, body: Any, finding: str) -> None:
    answers = Answers()
    del answers.functions[source]
    async with answering(200, body)() as url:
        config = configuration({"sources": {source: {"url": url}}}, "a test")
        exchanges, findings = await probe(config, ORDER, answers.functions)
    (exchange,) = [exchange for exchange in exchanges if exchange.source == source]
    assert (exchange.status, exchange.fault) == (200, None)
    assert finding in findings
    assert not any("trace" in text for text in findings)


async def test_payment_services_are_probed_through_their_adapter_and_as_objects(tmp_path: Path) -> None:
    (tmp_path / "probed_engine.py").write_text(
        "from cashier.wire.transport import Request\n"
        "async def submit(submission, call): ...\n"
        "async def look_up(payment_id, order_id, call):\n"
        "    return (await call(Request('/charges/1'))).json()['data']\n"
    )

    class Unwell:
        decide = verify = AsyncMock()

        async def result(self, order_id: str, call_headers: Any, budget_ms: int) -> Any:
            raise ValueError(order_id)

    async with answering(200, {"data": None})() as url:
        config = configuration(
            {"sources": {"engine": {"url": url, "adapter": "probed_engine"}}}, "a test", beside=tmp_path
        )
        functions = {**Answers().functions, "risk": Unwell(), "acquirer": Unwell()}
        exchanges, _ = await probe(config, ORDER, functions)
    probed = {exchange.source: exchange for exchange in exchanges}
    engine, acquirer = probed["engine"], probed["acquirer"]
    assert (engine.requests, engine.status, engine.fault, engine.answer) == (("GET /charges/1",), 200, None, None)
    assert acquirer.fault is not None
    assert acquirer.fault.startswith("GARBLED: result of Unwell raised ValueError (test_probe.py, line ")
    assert Unwell.decide.await_count == 0
