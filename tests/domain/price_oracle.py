"""The price of every payment method by brute force: every legal set, channel and share.

Uses plain integers and none of the production rules. Covers prices only: all sources answer, and
all channels, cards and accounts are active.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from cashier.domain.facts import Account, Card, Channel, Promotion, Quota
from tests.domain.builders import World

# Later is nearer to usable.
CODES = (
    "NO_CHANNEL",
    "AMOUNT_NOT_CARRIABLE",
    "BELOW_MIN",
    "ABOVE_SINGLE_LIMIT",
    "DAILY_LIMIT_EXCEEDED",
    "MONTHLY_LIMIT_EXCEEDED",
    "BALANCE_INSUFFICIENT",
)


class Expected(NamedTuple):
    """`code`: of the refusal, None if the method is usable. `remedy`: its amount.

    `off`: ids and values in the order of the discounts. `options`: by id.
    """

    code: str | None
    remedy: int | None = None
    payable: int | None = None
    fee: int | None = None
    off: tuple[tuple[str, int], ...] = ()
    legs: tuple[tuple[str, str, int], ...] = ()
    options: tuple[tuple[str, Expected], ...] = ()


class Coupon(NamedTuple):
    """Sorts by preference."""

    negative_value: int
    never_expires: bool
    expires_at: str
    promotion_id: str
    group: str
    stackable: bool


def oracle(world: World) -> dict[str, Expected]:
    """The expected price and refusal of each method."""
    for legal in sorted(_legal_sets(world, ["FREE"], None, 1), key=lambda coupons: (len(coupons), coupons)):
        off = _off(legal, world.order.amount.value)
        if sum(value for _, value in off) == world.order.amount.value and not (off and _at_till(world)):
            return {"FREE": Expected(None, None, 0, 0, off)}
    found: dict[str, Expected] = {}
    for card in world.cards:
        found[f"QUICK_PAY:{card.card_id}"] = _best(
            _over(world, channel, "QUICK_PAY", card.bank, card.card_id) for channel in _channels(world, card)
        )
    for agreement in world.agreements:
        ceiling = None if agreement.single_max is None else agreement.single_max.value
        found[f"AGREEMENT:{agreement.agreement_id}"] = _best(
            _over(world, channel, "AGREEMENT", channel.provider, None, ceiling)
            for channel in world.channels
            if channel.kind == "AGREEMENT" and channel.channel_id == agreement.channel_id
        )
    for account in world.accounts:
        alone = found[f"BALANCE:{account.account_id}"] = _alone(world, account)
        if alone.code == "BALANCE_INSUFFICIENT" and world.cards and account.available.value:
            found[f"BALANCE:{account.account_id}+QUICK_PAY"] = _split(world, account)
    for kind in ("WALLET", "VA", "CARD"):
        found |= _of_channels(world, kind)
    return found


def _at_till(world: World) -> bool:
    return world.request.terminal == "POS" or world.request.product == "SCAN"


def _of_channels(world: World, kind: str) -> dict[str, Expected]:
    own = [channel for channel in world.channels if channel.kind == kind]
    providers = sorted({channel.provider for channel in own})
    if kind == "CARD":
        return {kind: _best(_over(world, channel, kind, None, None) for channel in own)} if own else {}
    by_provider = {
        provider: _best(_over(world, channel, kind, provider, None) for channel in own if channel.provider == provider)
        for provider in providers
    }
    if kind == "WALLET":
        return {f"WALLET:{provider}": expected for provider, expected in by_provider.items()}
    if not own:
        return {}
    best = _best(_over(world, channel, kind, channel.provider, None) for channel in own)
    return {kind: best._replace(options=tuple(by_provider.items()))}


def _channels(world: World, card: Card) -> Iterator[Channel]:
    return (channel for channel in world.channels if channel.kind == "QUICK_PAY" and channel.provider == card.bank)


def _best(quotes: Iterable[tuple[str, Expected]]) -> Expected:
    """Usable first, then the refusal nearest to usable, then the lowest price; then by channel."""
    ranked = [
        (quote.code is not None, -CODES.index(quote.code or CODES[0]), quote.payable, channel_id, quote)
        for channel_id, quote in quotes
    ]
    return min(ranked, key=lambda row: row[:4])[-1] if ranked else Expected("NO_CHANNEL")


def _over(
    world: World, channel: Channel, kind: str, bank: str | None, card_id: str | None, ceiling: int | None = None
) -> tuple[str, Expected]:
    """The channel's id and what it costs to pay all over it."""
    order, bps, step, least = world.order.amount.value, channel.fee_bps or 0, channel.step, channel.min.value
    candidates = []
    for legal in _legal_sets(world, [kind], bank, step):
        total = min(order, -sum(coupon.negative_value for coupon in legal))
        rest = order - total
        if (rest == 0 and not _at_till(world)) or (rest and rest + _fee(rest, bps, step) >= least):
            candidates.append((-total, len(legal), legal))
    total, _, legal = min(candidates, default=(0, 0, ()))
    fee = _fee(order + total, bps, step)
    payable = order + total + fee
    limits = _limits(world, kind, channel, card_id, ceiling)
    code, remedy = None, None
    if payable % step:
        code, remedy = "AMOUNT_NOT_CARRIABLE", _largest(min([*limits, payable]), channel)
    elif 0 < payable < least:
        code = "BELOW_MIN"
    elif payable > min(limits):
        code, remedy = _exceeded(limits, payable), _largest(min(limits), channel)
    return channel.channel_id, Expected(code, remedy, payable, fee, _off(legal, order))


def _alone(world: World, account: Account) -> Expected:
    order, held = world.order.amount.value, account.available.value
    legal = min(
        _legal_sets(world, ["BALANCE"], None, 1),
        key=lambda coupons: (-min(order, -sum(each.negative_value for each in coupons)), len(coupons), coupons),
    )
    payable = order - min(order, -sum(coupon.negative_value for coupon in legal))
    limits = _limits(world, "BALANCE", None, None, None)
    code, remedy = None, None
    if payable > min(limits):
        code, remedy = _exceeded(limits, payable), min(*limits, held) or None
    elif payable > held:
        code, remedy = "BALANCE_INSUFFICIENT", payable - held
    return Expected(code, remedy, payable, 0, _off(legal, order))


def _split(world: World, account: Account) -> Expected:
    quotes, options = [], []
    for card in sorted(world.cards, key=lambda card: card.card_id):
        own = [_split_over(world, account, card, channel) for channel in _channels(world, card)]
        quotes += own
        options.append((card.card_id, _best(own)._replace(legs=())))
    return (_best(quotes) if quotes else Expected("NO_CHANNEL"))._replace(options=tuple(options))


def _split_over(world: World, account: Account, card: Card, channel: Channel) -> tuple[str, Expected]:
    """Try every share of the card. The balance gives as much as it can.

    Promotions of the card's bank may leave nothing to pay.
    """
    order, bps, step = world.order.amount.value, channel.fee_bps or 0, channel.step
    held, least = account.available.value, channel.min.value
    candidates, shares_without_bound = [], False
    for legal in _legal_sets(world, ["BALANCE", "QUICK_PAY"], card.bank, step):
        rest = order - min(order, -sum(coupon.negative_value for coupon in legal))
        if not rest:
            candidates.append((0, len(legal), legal, 0))
        shares = [
            share
            for share in range(1, rest)
            if (share + _fee(share, bps, step)) % step == 0 and share + _fee(share, bps, step) >= least
        ]
        shares_without_bound = shares_without_bound or bool(shares)
        affordable = [share for share in shares if rest - share <= held]
        if affordable:
            candidates.append((rest, len(legal), legal, min(affordable)))
    if not candidates:
        return channel.channel_id, Expected("AMOUNT_NOT_CARRIABLE" if shares_without_bound else "BELOW_MIN")
    rest, _, legal, share = min(candidates)
    fee = _fee(share, bps, step)
    limits, carried, balance = _limits(world, "QUICK_PAY", channel, card.card_id, None), share + fee, rest - share
    legs = (("BALANCE", account.account_id, balance), ("CHANNEL", card.card_id, carried)) if rest else ()
    code, remedy = None, None
    if carried > min(limits):
        code, remedy = _exceeded(limits, carried), _largest(min(limits), channel)
        remedy = None if remedy is None else remedy + balance
    return channel.channel_id, Expected(code, remedy, rest + fee, fee, _off(legal, order), legs)


def _legal_sets(world: World, kinds: Sequence[str], bank: str | None, step: int) -> Iterator[tuple[Coupon, ...]]:
    """Every set of promotions that may be combined, the most preferred promotion first."""
    coupons = sorted(_coupons(world, kinds, bank, step))
    for size in range(len(coupons) + 1):
        for subset in combinations(coupons, size):
            groups = {coupon.group for coupon in subset}
            if size < 2 or (len(groups) == size and all(coupon.stackable for coupon in subset)):
                yield subset


def _coupons(world: World, kinds: Sequence[str], bank: str | None, step: int) -> Iterator[Coupon]:
    order, currency = world.order.amount.value, world.order.amount.currency
    chosen = world.request.chosen_promotions
    for each in world.promotions:
        if chosen is not None and each.promotion_id not in chosen:
            continue
        if each.threshold.currency != currency or order < each.threshold.value:
            continue
        if each.expires_at is not None and each.expires_at <= world.now:
            continue
        if (each.kinds and not each.kinds.issuperset(kinds)) or (each.banks is not None and bank not in each.banks):
            continue
        value = min(_worth(each, order, currency), order)
        # What covers the order leaves nothing that a channel would carry.
        value = value if value == order else value // step * step
        if value:
            expiry = each.expires_at
            yield Coupon(
                -value, expiry is None, "" if expiry is None else expiry.isoformat(), each.promotion_id,
                each.group, each.stackable,
            )  # fmt: skip


def _worth(promotion: Promotion, order: int, currency: str) -> int:
    if promotion.amount_off is not None:
        return promotion.amount_off.value
    if promotion.percent_off_bps is None or (promotion.cap is not None and promotion.cap.currency != currency):
        return 0
    share = order * promotion.percent_off_bps // 10_000
    return share if promotion.cap is None else min(share, promotion.cap.value)


def _off(legal: Sequence[Coupon], order: int) -> tuple[tuple[str, int], ...]:
    """The last one is cut to what is left of the order."""
    off, left = [], order
    for coupon in legal:
        value = min(-coupon.negative_value, left)
        off.append((coupon.promotion_id, value))
        left -= value
    return tuple(off)


def _fee(value: int, bps: int, step: int) -> int:
    return (2 * value * bps + 10_000) // 20_000 // step * step


def _limits(
    world: World, kind: str, channel: Channel | None, card_id: str | None, ceiling: int | None
) -> tuple[int, int, int]:
    """On a single payment, left of the day, left of the month."""
    single, daily, monthly = [10**18], [10**18], [10**18]
    if channel is not None:
        single.append(channel.max.value)
    if ceiling is not None:
        single.append(ceiling)
    for quota in world.quotas:
        if not _covers(quota, kind, channel, card_id):
            continue
        if quota.single is not None:
            single.append(quota.single.value)
        for period, left in ((quota.daily, daily), (quota.monthly, monthly)):
            if period is not None:
                left.append(max(0, period.limit.value - period.used.value))
    return min(single), min(daily), min(monthly)


def _covers(quota: Quota, kind: str, channel: Channel | None, card_id: str | None) -> bool:
    scope = quota.scope
    bank, channel_id = (None, None) if channel is None else (channel.provider, channel.channel_id)
    narrowed = ((scope.bank, bank), (scope.channel_id, channel_id), (scope.card_id, card_id))
    return scope.kind == kind and all(wanted is None or wanted == own for wanted, own in narrowed)


def _exceeded(limits: tuple[int, int, int], payable: int) -> str:
    codes = ("ABOVE_SINGLE_LIMIT", "DAILY_LIMIT_EXCEEDED", "MONTHLY_LIMIT_EXCEEDED")
    return next(code for code, limit in zip(codes, limits, strict=True) if payable > limit)


def _largest(limit: int, channel: Channel) -> int | None:
    """The largest amount up to `limit` that the channel carries."""
    carriable = (amount for amount in range(limit, 0, -1) if amount % channel.step == 0)
    return next((amount for amount in carriable if amount >= channel.min.value), None)
