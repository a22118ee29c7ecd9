"""Basic checks: whether the order may be paid at all.

The result never depends on the order of the answers. The order's parties are checked first, so no
caller learns the state of a foreign order.
"""

from __future__ import annotations

from datetime import datetime

from cashier.domain.facts import Member, MemberStatus, Merchant, MerchantStatus
from cashier.domain.order import Blocked, ConsultRequest, Order, OrderStatus
from cashier.source_errors import Missing

_BY_STATUS = {
    OrderStatus.PAYING: Blocked.ORDER_IN_PROGRESS,
    OrderStatus.PAID: Blocked.ORDER_PAID,
    OrderStatus.CLOSED: Blocked.ORDER_CLOSED,
    OrderStatus.REFUNDED: Blocked.ORDER_CLOSED,
}
_BY_MEMBER = {MemberStatus.FROZEN: Blocked.USER_FROZEN, MemberStatus.CLOSED: Blocked.USER_CLOSED}
OWNERSHIP_BLOCKS = frozenset({Blocked.ORDER_MERCHANT_MISMATCH, Blocked.ORDER_USER_MISMATCH})


def order_block(request: ConsultRequest, order: Order, now: datetime) -> Blocked | None:
    """Check the parties, the state, then the caller's claims."""
    if order.merchant_id != request.merchant_id:
        return Blocked.ORDER_MERCHANT_MISMATCH
    if order.user_id is not None and order.user_id != request.user_id:
        return Blocked.ORDER_USER_MISMATCH
    if order.status is not OrderStatus.PENDING:
        return _BY_STATUS[order.status]
    if order.expires_at <= now:
        return Blocked.ORDER_EXPIRED
    if request.amount is not None and request.amount != order.amount:
        return Blocked.AMOUNT_MISMATCH
    if request.country is not None and request.country != order.country:
        return Blocked.COUNTRY_MISMATCH
    if request.product is not order.product:
        return Blocked.PRODUCT_MISMATCH
    return None


def merchant_block(request: ConsultRequest, merchant: Merchant | None) -> Blocked | None:
    if merchant is None:
        return Blocked.MERCHANT_UNKNOWN
    if merchant.status is not MerchantStatus.ACTIVE:
        return Blocked.MERCHANT_SUSPENDED
    if request.product not in merchant.products:
        return Blocked.PRODUCT_NOT_CONTRACTED
    return None


def member_block(member: Member | None) -> Blocked | None:
    if member is None:
        return Blocked.USER_UNKNOWN
    return _BY_MEMBER.get(member.status)


def first_block(
    request: ConsultRequest,
    order: Order,
    merchant: Merchant | Missing | None,
    member: Member | Missing | None,
    now: datetime,
) -> Blocked | None:
    """The first failed check. Stops at the first missing fact, so that arrival order has no effect.

    None for `merchant` or `member`: the id is unknown. A walk-in, without user, is no member.
    """
    blocked = order_block(request, order, now)
    if blocked is not None or isinstance(merchant, Missing):
        return blocked
    blocked = merchant_block(request, merchant)
    if blocked is not None or request.user_id is None or isinstance(member, Missing):
        return blocked
    return member_block(member)
