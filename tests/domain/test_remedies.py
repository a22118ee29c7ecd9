"""What an answer says of limits and remedies is what a later payment meets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.facts import Channel, ChannelStatus, Quota
from cashier.domain.pay_method import Availability, Kind, Limits, Option, PayMethod, ReasonCode, Remedy, RemedyType
from tests.domain.builders import NOW, World, account, card, channel, cny, order, quota

LIMIT_CODES = {ReasonCode.ABOVE_SINGLE_LIMIT, ReasonCode.DAILY_LIMIT_EXCEEDED, ReasonCode.MONTHLY_LIMIT_EXCEEDED}
KINDS = (Kind.QUICK_PAY, Kind.WALLET, Kind.NET_BANKING, Kind.CARD, Kind.BALANCE)
AMOUNTS = st.integers(1, 60).map(lambda tens: tens * 10) | st.integers(1, 600)


@st.composite
def channels(draw: st.DrawFn, kind: Kind, provider: str, number: int) -> Channel:
    least = draw(AMOUNTS)
    until = draw(st.none() | st.integers(-10, 7_200).map(lambda seconds: NOW + timedelta(seconds=seconds)))
    return channel(
        kind,
        provider,
        f"{kind}:{provider}:{number}",
        least=least,
        most=max(least, draw(AMOUNTS)),
        step=draw(st.sampled_from((1, 1, 10, 100))),
        status=draw(st.sampled_from((ChannelStatus.OPEN, ChannelStatus.OPEN, ChannelStatus.MAINTENANCE))),
        until=until,
    )


@st.composite
def quotas(draw: st.DrawFn) -> Quota:
    period = st.none() | st.tuples(AMOUNTS, AMOUNTS)
    single = draw(AMOUNTS)
    return quota(draw(st.sampled_from(KINDS)), single=single, daily=draw(period), monthly=draw(period))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Fees and discounts would move the payable amount: `price_oracle` covers these."""
    kinds = (Kind.QUICK_PAY, Kind.WALLET, Kind.NET_BANKING, Kind.CARD)
    return World(
        order=order(draw(AMOUNTS)),
        cards=(card("CMB"),),
        accounts=(account(draw(AMOUNTS)),),
        channels=tuple(
            draw(channels(kind, "CMB", number)) for kind in kinds for number in range(draw(st.integers(1, 2)))
        ),
        quotas=tuple(draw(st.lists(quotas(), max_size=3))),
    )


def entries(world: World) -> Iterator[tuple[str, str | None, PayMethod | Option]]:
    for method in world.methods():
        yield method.method_id, None, method
        for option in method.options:
            yield method.method_id, option.option_id, option


def entry(world: World, method_id: str, option_id: str | None) -> PayMethod | Option:
    [found] = [found for id_, option, found in entries(world) if (id_, option) == (method_id, option_id)]
    return found


def remedies(world: World, type_: RemedyType) -> Iterator[tuple[str, str | None, Remedy]]:
    for method_id, option_id, found in entries(world):
        remedy = None if found.reason is None else found.reason.remedy
        if remedy is not None and remedy.type is type_:
            yield method_id, option_id, remedy


@given(world=worlds())
def test_a_reduced_amount_is_accepted(world: World) -> None:
    for method_id, option_id, remedy in remedies(world, RemedyType.REDUCE_AMOUNT):
        assert remedy.amount is not None
        assert 0 < remedy.amount.value < world.order.amount.value
        reduced = entry(world.but(order=order(remedy.amount)), method_id, option_id)
        assert (reduced.availability, reduced.reason) == (Availability.AVAILABLE, None)


@given(world=worlds())
def test_a_topped_up_balance_is_accepted(world: World) -> None:
    for method_id, option_id, remedy in remedies(world, RemedyType.TOP_UP):
        assert remedy.amount is not None
        [held] = world.accounts
        fuller = world.but(accounts=(account(held.available.value + remedy.amount.value),))
        assert entry(fuller, method_id, option_id).availability is Availability.AVAILABLE


@given(world=worlds())
def test_no_one_is_told_to_wait_beyond_the_order(world: World) -> None:
    for method_id, _, remedy in remedies(world, RemedyType.WAIT_UNTIL):
        assert remedy.until is not None
        kind = Kind(method_id.partition(":")[0])
        needed = timedelta(seconds=world.catalog.methods[kind].needs_s)
        assert NOW < remedy.until <= world.order.expires_at - needed


def tightest(limits: Limits) -> int | None:
    values = [limit.value for limit in (limits.single, limits.daily_remaining, limits.monthly_remaining) if limit]
    return min(values, default=None)


@given(world=worlds())
def test_the_shown_limits_are_those_of_a_submit(world: World) -> None:
    by_kind: dict[str, list[Channel]] = {}
    for each in world.channels:
        by_kind.setdefault(each.kind, []).append(each)
    rich = world.but(accounts=(account(10_000),))
    for method in rich.methods():
        own = by_kind.get(method.kind, [])
        if method.availability is not Availability.AVAILABLE or method.limits is None or len(own) > 1:
            continue  # another channel may carry more: the limits are those of the best one
        limit = tightest(method.limits)
        step, least = (own[0].step, own[0].min.value) if own else (1, 1)
        if limit is None:
            continue
        within = limit - limit % step
        assert within >= least
        assert entry(rich.but(order=order(within)), method.method_id, None).availability is Availability.AVAILABLE
        above = entry(rich.but(order=order(within + step)), method.method_id, None)
        assert above.reason is not None
        assert above.reason.code in LIMIT_CODES


def test_a_split_names_the_reduced_amount_of_the_whole() -> None:
    """The balance's share on top of the card's limit."""
    base = World(
        order=order(900),
        cards=(card("CMB"),),
        accounts=(account(200),),
        channels=(channel(Kind.QUICK_PAY, "CMB", least=100, most=500),),
    )
    [(method_id, _, remedy)] = [found for found in remedies(base, RemedyType.REDUCE_AMOUNT) if "+" in found[0]][:1]
    assert remedy.amount == cny(700)
    assert entry(base.but(order=order(700)), method_id, None).availability is Availability.AVAILABLE
    too_small = base.but(quotas=(quota(Kind.QUICK_PAY, single=99),))
    assert not [found for found in remedies(too_small, RemedyType.REDUCE_AMOUNT) if "+" in found[0]]


def test_the_catalog_refuses_lifetimes_that_no_payer_could_use() -> None:
    catalog = World().catalog

    def faults(kind: Kind, **changes: object) -> list[str]:
        terms = structs.replace(catalog.methods[kind], **changes)
        return structs.replace(catalog, methods={**catalog.methods, kind: terms}).faults()

    [fault] = faults(Kind.OTC, expires_in_s=900)
    assert "OTC.needs_s = 1800 is more than expires_in_s = 900" in fault
    [fault] = faults(Kind.CARD, expires_in_s=None)
    assert fault == "methods: CARD.expires_in_s is missing: what REDIRECT shows needs an end"
