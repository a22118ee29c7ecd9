"""Rows of a refusing source that cannot be understood: exactly the methods that they could refuse
are undetermined, and the other rows stand.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.facts import Period, Quota, Scope
from cashier.domain.money import Money
from cashier.domain.pay_method import Availability, Kind, PayMethod, ReasonCode
from tests.domain.builders import World, account, agreement, card, channel, order
from tests.domain.world_strategies import worlds

AVAILABLE, UNAVAILABLE, UNDETERMINED = Availability.AVAILABLE, Availability.UNAVAILABLE, Availability.UNDETERMINED
UNKNOWN_KINDS = ["quick", "QUICKPAY", "", "CRYPTO"]


def by_id(world: World) -> dict[str, PayMethod]:
    return {method.method_id: method for method in world.methods()}


@st.composite
def unclear_quotas(draw: st.DrawFn, world: World) -> Quota:
    """A quota of an unknown kind, or of a known one without any limit, in a scope of this world."""
    banks = {held.bank for held in world.cards} | {each.provider for each in world.channels} | {"308"}
    narrowed = {
        "bank": draw(st.sampled_from([None, *sorted(banks)])),
        "channel_id": draw(st.sampled_from([None, *sorted(each.channel_id for each in world.channels)])),
        "card_id": draw(st.sampled_from([None, *sorted(held.card_id for held in world.cards)])),
    }
    if draw(st.booleans()):
        limit = Money(world.order.amount.currency, 10**6)
        fields: dict[str, Any] = {"single": limit, "daily": Period(limit, Money(limit.currency, 0))}
        return Quota(Scope(draw(st.sampled_from(UNKNOWN_KINDS)), **narrowed), **fields)
    return Quota(Scope(draw(st.sampled_from(list(Kind))), **narrowed))


@given(st.data())
def test_an_unclear_quota_leaves_undetermined_what_it_could_refuse_and_nothing_else(data: st.DataObject) -> None:
    world = data.draw(worlds())
    unclear = data.draw(unclear_quotas(world))
    before, after = by_id(world), by_id(world.but(quotas=(*world.quotas, unclear)))
    kinds = list(Kind) if unclear.scope.kind in UNKNOWN_KINDS else [Kind(unclear.scope.kind)]
    nothing = Money(world.order.amount.currency, 0)
    meanings = [
        by_id(world.but(quotas=(*world.quotas, Quota(structs.replace(unclear.scope, kind=kind), single=nothing))))
        for kind in kinds
    ]
    assert after.keys() == before.keys()
    for method_id, method in before.items():
        assume(method.amount is None or method.amount.payable.value > 0)
        now = after[method_id]
        if method.availability is not AVAILABLE:
            assert now.availability is method.availability
            continue
        refused = any(
            method_id not in meaning or meaning[method_id].availability is not AVAILABLE for meaning in meanings
        )
        assert now.availability is (UNDETERMINED if refused else AVAILABLE), method_id
        if refused:
            assert now.reason is not None
            assert (now.reason.code, now.reason.source) == (ReasonCode.SOURCE_ERROR, "quota")


@pytest.mark.parametrize(
    "scope", [Scope("quick"), Scope("quick", bank="A"), Scope(Kind.WALLET), Scope(Kind.WALLET, "A")]
)
def test_an_order_above_no_known_limit_is_still_not_offered_under_an_unclear_one(scope: Scope) -> None:
    world = World(order=order(100), channels=(channel(Kind.WALLET, "A"), channel(Kind.WALLET, "B")))
    methods = by_id(world.but(quotas=(Quota(scope),)))
    assert methods["WALLET:A"].availability is UNDETERMINED
    assert methods["WALLET:B"].availability is (AVAILABLE if scope.bank else UNDETERMINED)


def test_a_known_refusal_comes_before_an_unclear_row() -> None:
    world = World(order=order(100), channels=(channel(Kind.WALLET, "A", most=50),), quotas=(Quota(Scope("quick")),))
    reason = world.method("WALLET:A").reason
    assert reason is not None
    assert reason.code is ReasonCode.ABOVE_SINGLE_LIMIT


@pytest.mark.parametrize("status", ["NORMAL", "active", "", "BLOCKED"])
@pytest.mark.parametrize(
    ("source", "row", "method_id"),
    [
        ("card", "cards", "QUICK_PAY:c_1"),
        ("card", "agreements", "AGREEMENT:ag_1"),
        ("balance", "accounts", "BALANCE:acc_1"),
        ("channel", "channels", "WALLET:A"),
    ],
)
def test_a_row_with_an_unknown_status_is_undetermined_and_its_siblings_are_not(
    status: str, source: str, row: str, method_id: str
) -> None:
    world = World(
        order=order(100),
        cards=(card("A", "c_1"), card("A", "c_2")),
        agreements=(agreement("AGREEMENT:A", "ag_1"), agreement("AGREEMENT:A", "ag_2")),
        accounts=(account(500, "acc_1"), account(500, "acc_2")),
        channels=(
            channel(Kind.WALLET, "A"),
            channel(Kind.WALLET, "B"),
            channel(Kind.QUICK_PAY, "A"),
            channel(Kind.AGREEMENT, "A"),
        ),
    )
    before = by_id(world)
    assert before[method_id].availability is AVAILABLE
    first, *others = getattr(world, row)
    after = by_id(world.but(**{row: (structs.replace(first, status=status), *others)}))
    unclear = after.pop(method_id)
    assert unclear.availability is UNDETERMINED
    assert unclear.reason is not None
    assert (unclear.reason.code, unclear.reason.source) == (ReasonCode.SOURCE_ERROR, source)
    del before[method_id]
    assert {name: method.availability for name, method in after.items()} == {
        name: method.availability for name, method in before.items()
    }
