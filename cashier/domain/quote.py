"""Quote: what one road for the money would cost, may carry and is refused for; and which of several to take."""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.facts import Channel
from cashier.domain.money import BPS
from cashier.domain.pay_method import Amounts, Leg, Limits
from cashier.domain.refusal import Refusal


class Quote(Struct, frozen=True, gc=False):
    """What one road would cost and may carry, and what speaks against it. Without a channel nothing of it may be known."""

    refusal: Refusal | None
    amounts: Amounts | None = None
    limits: Limits | None = None
    channel: Channel | None = None
    legs: tuple[Leg, ...] = ()


def best_quote(quotes: list[Quote]) -> Quote:
    """The road to take: usable, then undetermined, then the one that got furthest. Among equals the cheapest for the payer, then one
    that loses hardly any payments, then the cheapest for us."""
    return quotes[0] if len(quotes) == 1 else min(quotes, key=_preference)


def _preference(quote: Quote) -> tuple[int, int, int, int, int, int, str]:
    refusal, channel, amounts = quote.refusal, quote.channel, quote.amounts
    standing = hope = 0
    if refusal is not None:
        standing, hope = (1, 0) if refusal.undetermined else (2, -refusal.hope)
    payable = 0 if amounts is None else amounts.payable.value
    if channel is None:
        return (standing, hope, payable, 0, 0, 0, "")
    # By tenths: no difference in cost makes up for every tenth payment lost, any does for a single one in a hundred.
    success_bps, cost = (
        channel.success_bps,
        channel.cost_bps if channel.fixed_cost is None else cost_bps(channel, payable),
    )
    return (standing, hope, payable, (BPS - success_bps) // 1_000, cost, -success_bps, channel.channel_id)


def cost_bps(channel: Channel, payable: int) -> int:
    """What the channel costs us, in basis points of what it carries; at most all of that. A fixed cost in another currency is not known."""
    fixed = channel.fixed_cost
    if fixed is None or not payable or fixed.currency != channel.max.currency:
        return channel.cost_bps
    return min(BPS, channel.cost_bps + fixed.value * BPS // payable)
