"""Price, refusal, remedy and shares of every method against brute force."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.facts import Channel
from cashier.domain.money import Currency, Money
from cashier.domain.pay_method import Amounts, Availability, Kind, Leg, Reason
from tests.domain.builders import World, account, agreement, card, channel, merchant, order, request
from tests.domain.price_oracle import Expected, oracle
from tests.domain.world_strategies import BANKS, CURRENCIES, optional, promotions, quotas

KINDS = (Kind.QUICK_PAY, Kind.AGREEMENT, Kind.BALANCE, Kind.WALLET, Kind.VA, Kind.CARD)
CHANNEL_KINDS = st.sampled_from([Kind.QUICK_PAY] * 4 + [Kind.AGREEMENT, Kind.WALLET, Kind.VA, Kind.CARD])
BOUNDS = st.sampled_from([(1, 10**6), (1, 10**6), (0, 10**6), (50, 200), (101, 10**6), (1, 100), (101, 109)])
FEES_BPS = st.sampled_from([0, 0, 1, 150, 999, 5_000, 10_000])
STEPS = st.sampled_from([1, 1, 2, 7, 10, 10, 50])
CHOICES = st.one_of(st.none(), st.lists(st.sampled_from(["p_0", "p_1", "p_2", "p_3", "x"]), max_size=4).map(tuple))
AMOUNTS = st.one_of(st.integers(0, 300), st.sampled_from([1, 50, 100, 101, 110, 200, 250]))


def channels(currency: Currency) -> st.SearchStrategy[tuple[Channel, ...]]:
    rows = st.lists(st.tuples(CHANNEL_KINDS, st.sampled_from(BANKS), BOUNDS, FEES_BPS, STEPS), max_size=7)

    def built(found: list[Any]) -> tuple[Channel, ...]:
        return tuple(
            structs.replace(
                channel(kind, provider, f"ch_{index}", currency=currency, least=least, most=most),
                fee_bps=fee_bps,
                step=step,
            )
            for index, (kind, provider, (least, most), fee_bps, step) in enumerate(found)
        )

    return rows.map(built)


@st.composite
def price_worlds(draw: st.DrawFn) -> World:
    currency = draw(st.sampled_from(CURRENCIES))
    held = draw(st.lists(st.one_of(st.integers(1, 60), st.integers(0, 300)), max_size=2))
    ceilings = draw(st.lists(st.tuples(st.integers(0, 4), optional(st.integers(1, 200))), max_size=2))
    return World(
        request=request(chosen_promotions=draw(CHOICES)),
        order=order(Money(currency, draw(AMOUNTS))),
        merchant=merchant(kinds=frozenset(KINDS)),
        cards=tuple(
            card(bank, f"c_{index}")
            for index, bank in enumerate(draw(st.lists(st.sampled_from(BANKS), min_size=1, max_size=3)))
        ),
        agreements=tuple(
            agreement(f"ch_{number}", f"a_{index}", single_max=None if ceiling is None else Money(currency, ceiling))
            for index, (number, ceiling) in enumerate(ceilings)
        ),
        accounts=tuple(account(Money(currency, value), f"b_{index}") for index, value in enumerate(held)),
        channels=draw(channels(currency)),
        # A quota without any limit is unclear, and leaves its methods undetermined.
        quotas=tuple(quota for quota in draw(quotas(currency)) if quota.single or quota.daily or quota.monthly),
        promotions=draw(promotions(currency)),
    )


def found(
    availability: Availability, reason: Reason | None, amount: Amounts | None, legs: tuple[Leg, ...] = ()
) -> Expected:
    remedy = None if reason is None or reason.remedy is None else reason.remedy.amount
    assert (availability is Availability.AVAILABLE) is (reason is None)
    return Expected(
        None if reason is None else str(reason.code),
        None if remedy is None else remedy.value,
        None if amount is None else amount.payable.value,
        None if amount is None else amount.fee.value,
        ()
        if amount is None
        else tuple((discount.promotion_id, discount.amount.value) for discount in amount.discounts),
        tuple((str(leg.type), leg.id, leg.amount.value) for leg in legs),
    )


def assert_priced_as_by_brute_force(world: World) -> None:
    expected = oracle(world)
    for method in world.methods():
        if method.kind is Kind.QUICK_PAY and method.instrument is None:
            continue
        actual = found(method.availability, method.reason, method.amount, method.legs)
        wanted = expected.pop(method.method_id)
        options = dict(wanted.options)
        assert_same(actual, wanted._replace(options=()), method.method_id)
        assert {option.option_id for option in method.options} == set(options)
        for option in method.options:
            single = found(option.availability, option.reason, option.amount)
            assert_same(single, options[option.option_id], f"{method.method_id} {option.option_id}")
    assert not expected


def assert_same(actual: Expected, wanted: Expected, method_id: str) -> None:
    """Of a split payment that no share makes possible, only the code is expected."""
    if wanted.payable is None:
        assert actual.code == wanted.code, method_id
        assert not actual.legs, method_id
    else:
        assert actual == wanted, method_id


@settings(max_examples=4 * settings().max_examples)
@given(price_worlds())
def test_prices_are_those_of_brute_force(world: World) -> None:
    assert_priced_as_by_brute_force(world)


def cases(world: World) -> set[str]:
    seen = set()
    for method in world.methods():
        code = "usable" if method.reason is None else str(method.reason.code)
        steps = {each.step for each in world.channels if each.kind is method.kind}
        stepped = "stepped" if steps - {1} else "whole"
        seen.add(f"{method.kind} {'split ' if method.method_id.endswith('+QUICK_PAY') else ''}{code}")
        if method.amount is not None and method.amount.discounts:
            seen.add(f"discount {code} {stepped}")
    return seen


@pytest.mark.proof
def test_thousands_of_prices_are_those_of_brute_force() -> None:
    """Counts what the worlds contain, since over worlds without a case any code would pass."""
    counted: Counter[str] = Counter()

    def check(world: World) -> None:
        assert_priced_as_by_brute_force(world)
        counted.update(cases(world))

    for number in range(16):
        seed(number)(
            settings(max_examples=500, deadline=None, database=None, phases=[Phase.generate])(
                given(price_worlds())(check)
            )
        )()
    for case in (
        "QUICK_PAY AMOUNT_NOT_CARRIABLE", "BALANCE split usable", "BALANCE split AMOUNT_NOT_CARRIABLE",
        "BALANCE split BELOW_MIN", "BALANCE split ABOVE_SINGLE_LIMIT", "QUICK_PAY MONTHLY_LIMIT_EXCEEDED",
        "AGREEMENT ABOVE_SINGLE_LIMIT", "discount usable stepped", "VA usable", "CARD usable", "WALLET usable",
    ):  # fmt: skip
        assert counted[case] >= 10, (case, counted)
