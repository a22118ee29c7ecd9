"""Payments for tests: legs, a submission cleared by risk, results of engine and acquirer."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cashier.sandbox.decline_rules import SubmitBody
from cashier.sandbox.records import Json
from cashier.sandbox.risk import Amount, DecisionBody
from cashier.sandbox.upstream_answer import UpstreamAnswer
from cashier.sandbox.world import World

from . import contract

CNY: Final = "CNY"
BY_CARD = {
    "type": "CHANNEL",
    "id": "ch_quick_cmb",
    "instrument_id": "c_2",
    "amount": {"currency": CNY, "value": 12_800},
}


def channel(channel_id: str, instrument_id: str | None = None, value: int = 12_800, currency: str = CNY) -> Json:
    return {
        "type": "CHANNEL",
        "id": channel_id,
        "instrument_id": instrument_id,
        "amount": {"currency": currency, "value": value},
    }


def balance(account_id: str, value: int) -> Json:
    return {"type": "BALANCE", "id": account_id, "amount": {"currency": CNY, "value": value}}


def promotion(value: int, promotion_id: str = "p_1") -> Json:
    return {"type": "PROMOTION", "id": promotion_id, "amount": {"currency": CNY, "value": value}}


def submission(
    world: World, payment_id: str = "pay_1", legs: tuple[Json, ...] = (BY_CARD,), **fields: Any
) -> SubmitBody:
    """A payment of `o_1001`, cleared by risk, changed by `fields`."""
    body = {
        "payment_id": payment_id,
        "order_id": "o_1001",
        "user_id": "u_1",
        "merchant_id": "m_1",
        "fingerprint": "f_1",
        "legs": legs,
    } | fields
    return msgspec.convert(body | {"decision_id": fields.get("decision_id") or cleared(world, payment_id)}, SubmitBody)


def cleared(world: World, payment_id: str) -> str:
    amount = Amount(CNY, 1)
    inquiry = DecisionBody(
        payment_id=payment_id, order_id="o_1001", user_id="u_1", merchant_id="m_1", amount=amount, kind="QUICK_PAY"
    )
    decision_id: str = world.risk.decide(inquiry)["decision_id"]
    return decision_id


def submit(world: World, body: SubmitBody) -> contract.Payment:
    return payment(world.engine.submit(body, body.payment_id))


def payment(answer: UpstreamAnswer) -> contract.Payment:
    assert answer.status == 200, answer
    return msgspec.json.decode(answer.encoded, type=contract.Payment)


def result(world: World, order_id: str = "o_1001") -> contract.Result:
    return msgspec.convert(world.acquirer.result(order_id), contract.Result)
