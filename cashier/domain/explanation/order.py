"""The checks of the order, one by one, by the function that decides: `order_checks.first_block`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct, structs

from cashier.domain.explanation.evidence import CLOCK, REQUEST, Evidence
from cashier.domain.explanation.schema import Check, Result
from cashier.domain.explanation.walk import sentence_of
from cashier.domain.facts import Member, MemberStatus, Merchant, MerchantStatus
from cashier.domain.order import Blocked, ConsultRequest, Order, OrderStatus
from cashier.domain.order_checks import OWNERSHIP_BLOCKS, first_block
from cashier.source_errors import Missing


class OrderCheck(StrEnum):
    """In the order of the checks."""

    ORDER_MERCHANT = "ORDER_MERCHANT"
    ORDER_USER = "ORDER_USER"
    ORDER_STATUS = "ORDER_STATUS"
    ORDER_LIFETIME = "ORDER_LIFETIME"
    CLAIMED_AMOUNT = "CLAIMED_AMOUNT"
    CLAIMED_COUNTRY = "CLAIMED_COUNTRY"
    CLAIMED_PRODUCT = "CLAIMED_PRODUCT"
    MERCHANT_KNOWN = "MERCHANT_KNOWN"
    MERCHANT_STATUS = "MERCHANT_STATUS"
    MERCHANT_PRODUCT = "MERCHANT_PRODUCT"
    MEMBER_KNOWN = "MEMBER_KNOWN"
    MEMBER_STATUS = "MEMBER_STATUS"


class _Checked(Struct, frozen=True):
    """The input of the checks. `merchant`, `member`: None where the id is unknown."""

    request: ConsultRequest
    order: Order
    merchant: Merchant | Missing | None
    member: Member | Missing | None
    now: datetime

    def block(self) -> Blocked | None:
        return first_block(self.request, self.order, self.merchant, self.member, self.now)


# Name, value and source; both sides of the comparison.
_NamedFacts: TypeAlias = list[tuple[str, Any, str]]


class _Row(Struct, frozen=True):
    """One check. `repaired`: the input that passes it; None if there is none."""

    demand: str
    blocks: frozenset[Blocked]
    source: str
    facts: Callable[[_Checked], _NamedFacts]
    repaired: Callable[[_Checked], _Checked | None]


def _order(**changes: Any) -> Callable[[_Checked], _Checked]:
    return lambda checked: structs.replace(checked, order=structs.replace(checked.order, **changes))


def _claims(**changes: Any) -> Callable[[_Checked], _Checked]:
    return lambda checked: structs.replace(checked, request=structs.replace(checked.request, **changes))


def _merchant(checked: _Checked, **changes: Any) -> _Checked:
    return structs.replace(checked, merchant=structs.replace(checked.merchant, **changes))  # type: ignore[type-var]


def _member(checked: _Checked, **changes: Any) -> _Checked:
    return structs.replace(checked, member=structs.replace(checked.member, **changes))  # type: ignore[type-var]


def _nothing(_: _Checked) -> None:
    return None


def _of(fact: Any, key: str) -> Any:
    """A field of an answer that may be missing."""
    return getattr(fact, key, None)


_ROWS: dict[OrderCheck, _Row] = {
    # The values of a foreign order stay hidden.
    OrderCheck.ORDER_MERCHANT: _Row(
        "the order must be the merchant's",
        frozenset({Blocked.ORDER_MERCHANT_MISMATCH}),
        "order",
        lambda it: [
            ("request merchant_id", it.request.merchant_id, REQUEST),
            ("order merchant_id", "another", "order"),
        ],
        _nothing,
    ),
    OrderCheck.ORDER_USER: _Row(
        "the order must name the payer or no user",
        frozenset({Blocked.ORDER_USER_MISMATCH}),
        "order",
        lambda it: [("request user_id", it.request.user_id, REQUEST), ("order user_id", "another", "order")],
        _nothing,
    ),
    OrderCheck.ORDER_STATUS: _Row(
        "the order must wait for a payment",
        frozenset({Blocked.ORDER_IN_PROGRESS, Blocked.ORDER_PAID, Blocked.ORDER_CLOSED}),
        "order",
        lambda it: [("order status", it.order.status, "order")],
        _order(status=OrderStatus.PENDING),
    ),
    OrderCheck.ORDER_LIFETIME: _Row(
        "the order must not have expired",
        frozenset({Blocked.ORDER_EXPIRED}),
        "order",
        lambda it: [("order expires_at", str(it.order.expires_at), "order"), ("now", str(it.now), CLOCK)],
        lambda it: _order(expires_at=it.now + timedelta(hours=1))(it),
    ),
    OrderCheck.CLAIMED_AMOUNT: _Row(
        "the amount that the caller claims must be the order's",
        frozenset({Blocked.AMOUNT_MISMATCH}),
        "order",
        lambda it: [
            ("request amount", str(it.request.amount), REQUEST),
            ("order amount", str(it.order.amount), "order"),
        ],
        _claims(amount=None),
    ),
    OrderCheck.CLAIMED_COUNTRY: _Row(
        "the country that the caller claims must be the order's",
        frozenset({Blocked.COUNTRY_MISMATCH}),
        "order",
        lambda it: [("request country", it.request.country, REQUEST), ("order country", it.order.country, "order")],
        _claims(country=None),
    ),
    OrderCheck.CLAIMED_PRODUCT: _Row(
        "the product of the request must be the order's",
        frozenset({Blocked.PRODUCT_MISMATCH}),
        "order",
        lambda it: [("request product", it.request.product, REQUEST), ("order product", it.order.product, "order")],
        lambda it: _order(product=it.request.product)(it),
    ),
    OrderCheck.MERCHANT_KNOWN: _Row(
        "the merchant service must know the merchant",
        frozenset({Blocked.MERCHANT_UNKNOWN}),
        "merchant",
        lambda it: [("request merchant_id", it.request.merchant_id, REQUEST)],
        _nothing,
    ),
    OrderCheck.MERCHANT_STATUS: _Row(
        "the merchant must be active",
        frozenset({Blocked.MERCHANT_SUSPENDED}),
        "merchant",
        lambda it: [("merchant status", _of(it.merchant, "status"), "merchant")],
        lambda it: _merchant(it, status=MerchantStatus.ACTIVE),
    ),
    OrderCheck.MERCHANT_PRODUCT: _Row(
        "the merchant's record must name the product",
        frozenset({Blocked.PRODUCT_NOT_CONTRACTED}),
        "merchant",
        lambda it: [
            ("request product", it.request.product, REQUEST),
            ("merchant products", sorted(_of(it.merchant, "products") or ()), "merchant"),
        ],
        lambda it: _merchant(it, products=frozenset({it.request.product})),
    ),
    OrderCheck.MEMBER_KNOWN: _Row(
        "the member service must know the payer",
        frozenset({Blocked.USER_UNKNOWN}),
        "member",
        lambda it: [("request user_id", it.request.user_id, REQUEST)],
        _nothing,
    ),
    OrderCheck.MEMBER_STATUS: _Row(
        "the payer must not be frozen or closed",
        frozenset({Blocked.USER_FROZEN, Blocked.USER_CLOSED}),
        "member",
        lambda it: [("member status", _of(it.member, "status"), "member")],
        lambda it: _member(it, status=MemberStatus.ACTIVE),
    ),
}
_CHECK_OF = {block: check for check, row in _ROWS.items() for block in row.blocks}


def order_checks(evidence: Evidence) -> tuple[Check, ...]:
    """Every check, in order. Needs the order itself. A walk-in is no member.

    Behind a check of the parties nothing is reached: that order is another's.
    """
    answers = evidence.answers
    checked = _Checked(evidence.request, answers["order"], answers["merchant"], answers["member"], evidence.now)
    stops = dict(_stops(checked))
    reached, unknown, checks = True, "", list[Check]()
    for check, row in _ROWS.items():
        if row.source == "member" and evidence.request.user_id is None:
            continue
        if check in stops:
            blocked, before = stops[check]
            facts = tuple(evidence.fact(*named) for named in row.facts(before))
            sentence = sentence_of(f"{blocked}: {row.demand}", facts)
            checks.append(Check(check, Result.REFUSED, blocked, row.source, facts, sentence))
            reached = reached and row.repaired(before) is not None
        elif not reached or unknown not in ("", row.source):
            checks.append(Check(check, Result.NOT_REACHED))
        elif isinstance(missing := answers[row.source], Missing):
            unknown = row.source
            facts = (evidence.fact(f"answer of {row.source}", f"missing ({missing.cause})", row.source),)
            sentence = sentence_of(f"Not known: {row.demand}", facts)
            checks.append(Check(check, Result.UNDETERMINED, None, row.source, facts, sentence))
        else:
            checks.append(Check(check, Result.PASSED))
    return tuple(checks)


def _stops(checked: _Checked) -> Iterator[tuple[OrderCheck, tuple[Blocked, _Checked]]]:
    current: _Checked | None = checked
    while current is not None and (blocked := current.block()) is not None:
        check = _CHECK_OF[blocked]
        yield check, (blocked, current)
        current = None if blocked in OWNERSHIP_BLOCKS else _ROWS[check].repaired(current)
