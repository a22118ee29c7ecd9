"""Quote: price, limits and refusal of a payment through one channel."""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.facts import Channel, InstalmentTerm
from cashier.domain.money import BPS
from cashier.domain.pay_method import Amounts, Leg, Limits
from cashier.domain.refusal import NEARNESS_BY_CODE, Refusal


class Quote(Struct, frozen=True, gc=False):
    """`amounts` and `limits` are None where they cannot be known, for example without a channel.

    `legs`: only for a split payment. `term`: only for instalments.
    """

    refusal: Refusal | None
    amounts: Amounts | None = None
    limits: Limits | None = None
    channel: Channel | None = None
    legs: tuple[Leg, ...] = ()
    term: InstalmentTerm | None = None


def best_quote(quotes: list[Quote]) -> Quote:
    """Prefer usable, then undetermined, then the latest refusal in the order of checks.

    Ties: lowest price for the payer, then fewest lost payments (in tenths), then lowest cost to us.
    """
    return quotes[0] if len(quotes) == 1 else min(quotes, key=_preference)


def _preference(quote: Quote) -> tuple[int, int, int, int, int, int, str]:
    refusal, channel, amounts = quote.refusal, quote.channel, quote.amounts
    availability_rank, check_order = (0, 0) if refusal is None else NEARNESS_BY_CODE[refusal.code]
    payable = 0 if amounts is None else amounts.payable.value
    if channel is None:
        return (availability_rank, check_order, payable, 0, 0, 0, "")
    # In tenths: no cost advantage outweighs one lost payment in ten, any outweighs one in a
    # hundred.
    success_bps, cost = (
        channel.success_bps,
        channel.cost_bps if channel.fixed_cost is None else cost_bps(channel, payable),
    )
    lost_tenths = (BPS - success_bps) // 1_000
    return (availability_rank, check_order, payable, lost_tenths, cost, -success_bps, channel.channel_id)


def cost_bps(channel: Channel, payable: int) -> int:
    """Our cost in basis points of what the channel carries, at most `BPS`.

    Ignores a fixed cost in another currency than the channel's limits.
    """
    fixed = channel.fixed_cost
    if fixed is None or not payable or fixed.currency != channel.max.currency:
        return channel.cost_bps
    return min(BPS, channel.cost_bps + fixed.value * BPS // payable)
