"""What acceptance learned: the groups of facts that are not what a consultation may have kept.

The groups decide what is forgotten. The facts of a market are shared by all payers, so only what
the market itself causes reaches them: a declined payer must not empty the list of channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.order import Blocked
from cashier.domain.pay_method import ReasonCode


class FactGroup(StrEnum):
    """`HOLDINGS`: those facts of a payer that a payment changes: balances, limits, coupons, habits.

    `PAYER`: all facts of a payer. `MERCHANT`: of a merchant. `MARKET`: of a currency and country.
    """

    HOLDINGS = "HOLDINGS"
    PAYER = "PAYER"
    MERCHANT = "MERCHANT"
    MARKET = "MARKET"


FactGroups = frozenset[FactGroup]
_NONE: FactGroups = frozenset()
_HOLDINGS = frozenset({FactGroup.HOLDINGS})
_PAYER = frozenset({FactGroup.PAYER})
_MERCHANT = frozenset({FactGroup.MERCHANT})
_MARKET = frozenset({FactGroup.MARKET})
_ANY = _PAYER | _MERCHANT | _MARKET

# A reason that is missing here may have any cause.
_BY_REASON: Mapping[ReasonCode, FactGroups] = {
    ReasonCode.MERCHANT_NOT_PERMITTED: _MERCHANT,
    ReasonCode.PRODUCT_NOT_SUPPORTED: _MERCHANT | _MARKET,
    ReasonCode.TERMINAL_NOT_SUPPORTED: _MARKET,
    ReasonCode.COUNTRY_NOT_SUPPORTED: _PAYER | _MARKET,
    ReasonCode.CURRENCY_NOT_SUPPORTED: _PAYER | _MARKET,
    ReasonCode.KYC_REQUIRED: _PAYER,
    ReasonCode.ORDER_EXPIRES_SOON: _NONE,
    ReasonCode.CARD_UNBOUND: _PAYER,
    ReasonCode.CARD_FROZEN: _PAYER,
    ReasonCode.CARD_EXPIRED: _PAYER,
    ReasonCode.AGREEMENT_TERMINATED: _PAYER,
    ReasonCode.ACCOUNT_FROZEN: _PAYER,
    ReasonCode.NO_CHANNEL: _MARKET,
    ReasonCode.CHANNEL_CLOSED: _MARKET,
    ReasonCode.CHANNEL_MAINTENANCE: _MARKET,
    ReasonCode.BELOW_MIN: _MARKET,
    ReasonCode.ABOVE_SINGLE_LIMIT: _PAYER | _MARKET,
    ReasonCode.DAILY_LIMIT_EXCEEDED: _PAYER,
    ReasonCode.MONTHLY_LIMIT_EXCEEDED: _PAYER,
    ReasonCode.BALANCE_INSUFFICIENT: _PAYER,
}
# A block that is only about the order teaches nothing: the order is never kept.
_BY_BLOCKED: Mapping[Blocked, FactGroups] = {
    Blocked.ORDER_PAID: _HOLDINGS,
    Blocked.ORDER_IN_PROGRESS: _HOLDINGS,
    Blocked.USER_UNKNOWN: _PAYER,
    Blocked.USER_FROZEN: _PAYER,
    Blocked.USER_CLOSED: _PAYER,
    Blocked.MERCHANT_UNKNOWN: _MERCHANT,
    Blocked.MERCHANT_SUSPENDED: _MERCHANT,
    Blocked.PRODUCT_NOT_CONTRACTED: _MERCHANT,
}
_BY_CHANGE: Mapping[ChangeType, FactGroups] = {
    ChangeType.ORDER_STATE: _NONE,
    ChangeType.CARD_UNBOUND: _PAYER,
    ChangeType.METHOD_CLOSED: _ANY,
    ChangeType.BALANCE_SHORT: _PAYER,
    ChangeType.LIMIT_REACHED: _PAYER | _MARKET,
    ChangeType.PROMOTION_GONE: _PAYER,
    ChangeType.PRICE_CHANGED: _PAYER,
}
# Prices that are not the payer's: the order's own, and the fee of a channel.
_BY_PRICE = {"order": _NONE, "fee": _MARKET}

# Failures that are about neither cards, accounts, limits nor promotions: the payer's own decision,
# a spent code, the end of the order, or a decision of risk.
_NOT_LEARNED_FROM = frozenset({"DECLINED", "REVERSED", "EXPIRED"})
_NOT_LEARNED_FROM_PREFIXES = ("AUTH_CODE_", "ORDER_", "RISK_")


def learned_from_changes(changes: Iterable[Change], blocked: Blocked | None) -> FactGroups:
    """`blocked`: why the order cannot be paid at all."""
    found = _BY_BLOCKED.get(blocked, _NONE) if blocked is not None else _NONE
    return found.union(*map(_learned_from_change, changes))


def learned_from_failure(code: str) -> FactGroups:
    """From the engine's code. One that is not known is about the payer: that costs only them."""
    if code.startswith(("CHANNEL_", "NO_CHANNEL")):
        return _MARKET
    if code.startswith("MERCHANT_"):
        return _MERCHANT
    return _NONE if code in _NOT_LEARNED_FROM or code.startswith(_NOT_LEARNED_FROM_PREFIXES) else _PAYER


def _learned_from_change(change: Change) -> FactGroups:
    if change.what is ChangeType.PRICE_CHANGED:
        return _BY_PRICE.get(change.subject or "", _PAYER)
    return _BY_CHANGE[change.what] if change.reason is None else _BY_REASON.get(change.reason, _ANY)
