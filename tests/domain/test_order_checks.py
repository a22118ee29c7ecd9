"""The basic checks and their order."""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations, product
from typing import Any

import pytest

from cashier.domain.facts import Member, MemberStatus, Merchant, MerchantStatus
from cashier.domain.order import Blocked, ConsultRequest, Order, OrderStatus, Product
from cashier.domain.order_checks import first_block
from cashier.source_errors import Missing, MissingCause
from tests.domain.builders import NOW, cny, member, merchant, order, request

SILENT = Missing("merchant", MissingCause.TIMEOUT)

# In the order of checks. Each fault is one set of changes to request, order, merchant and member.
WRONGS: list[tuple[Blocked, dict[str, dict[str, Any]]]] = [
    (Blocked.ORDER_MERCHANT_MISMATCH, {"order": {"merchant_id": "m_2"}}),
    (Blocked.ORDER_USER_MISMATCH, {"order": {"user_id": "u_2"}}),
    (Blocked.ORDER_PAID, {"order": {"status": OrderStatus.PAID}}),
    (Blocked.ORDER_EXPIRED, {"order": {"expires_at": NOW}}),
    (Blocked.AMOUNT_MISMATCH, {"request": {"amount": cny(9_999)}}),
    (Blocked.COUNTRY_MISMATCH, {"request": {"country": "JP"}}),
    (Blocked.PRODUCT_MISMATCH, {"order": {"product": Product.EMBEDDED_CASHIER}}),
    (Blocked.MERCHANT_SUSPENDED, {"merchant": {"status": MerchantStatus.SUSPENDED}}),
    (Blocked.PRODUCT_NOT_CONTRACTED, {"merchant": {"products": frozenset({Product.SCAN})}}),
    (Blocked.USER_FROZEN, {"member": {"status": MemberStatus.FROZEN}}),
]


def blocked(*wrongs: dict[str, dict[str, Any]]) -> Blocked | None:
    changes: dict[str, dict[str, Any]] = {"request": {}, "order": {}, "merchant": {}, "member": {}}
    for wrong in wrongs:
        for part, change in wrong.items():
            changes[part] |= change
    return first_block(
        request(**changes["request"]),
        order(**changes["order"]),
        merchant(**changes["merchant"]),
        member(**changes["member"]),
        NOW,
    )


def test_a_valid_order_of_an_active_user_and_merchant_is_not_blocked() -> None:
    assert blocked() is None
    assert blocked({"request": {"amount": cny(10_000), "country": "CN"}}) is None


@pytest.mark.parametrize(("code", "wrong"), WRONGS, ids=[code for code, _ in WRONGS])
def test_each_fault_blocks_with_its_code(code: Blocked, wrong: dict[str, dict[str, Any]]) -> None:
    assert blocked(wrong) is code


def test_of_two_faults_the_earlier_check_decides() -> None:
    for (first, earlier), (_, later) in combinations(WRONGS, 2):
        assert blocked(earlier, later) is first


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (OrderStatus.PAYING, Blocked.ORDER_IN_PROGRESS),
        (OrderStatus.PAID, Blocked.ORDER_PAID),
        (OrderStatus.CLOSED, Blocked.ORDER_CLOSED),
        (OrderStatus.REFUNDED, Blocked.ORDER_CLOSED),
    ],
)
def test_every_state_but_pending_blocks_even_after_expiry(status: OrderStatus, code: Blocked) -> None:
    assert blocked({"order": {"status": status, "expires_at": NOW - timedelta(days=1)}}) is code


def test_an_order_expires_at_its_instant_and_not_before() -> None:
    assert blocked({"order": {"expires_at": NOW + timedelta(microseconds=1)}}) is None
    assert blocked({"order": {"expires_at": NOW}}) is Blocked.ORDER_EXPIRED


def test_an_order_without_a_user_can_be_paid_by_any_user() -> None:
    assert blocked({"order": {"user_id": None}}) is None


@pytest.mark.parametrize("claim", [cny(10_001), cny(9_999)])
def test_a_claim_off_by_one_minor_unit_is_a_mismatch(claim: Any) -> None:
    assert blocked({"request": {"amount": claim}}) is Blocked.AMOUNT_MISMATCH


@pytest.mark.parametrize(("asked", "ordered"), list(product(Product, repeat=2)))
def test_an_order_is_paid_by_its_own_product_only(asked: Product, ordered: Product) -> None:
    of_order = {"request": {"product": asked}, "order": {"product": ordered}}
    assert blocked(of_order) is (None if asked is ordered else Blocked.PRODUCT_MISMATCH)


def test_closed_and_frozen_users_have_different_codes() -> None:
    assert blocked({"member": {"status": MemberStatus.CLOSED}}) is Blocked.USER_CLOSED


def test_an_unknown_user_or_merchant_blocks() -> None:
    assert first_block(request(), order(), None, member(), NOW) is Blocked.MERCHANT_UNKNOWN
    assert first_block(request(), order(), merchant(), None, NOW) is Blocked.USER_UNKNOWN


@pytest.mark.parametrize("about_member", [None, SILENT, member(status=MemberStatus.FROZEN)])
def test_a_walk_in_is_no_member_so_nothing_about_members_blocks(about_member: Member | Missing | None) -> None:
    walk_in = request(user_id=None, product=Product.SCAN)
    at_a_till = order(user_id=None, product=Product.SCAN)
    assert first_block(walk_in, at_a_till, merchant(), about_member, NOW) is None
    suspended = merchant(status=MerchantStatus.SUSPENDED)
    assert first_block(walk_in, at_a_till, suspended, about_member, NOW) is Blocked.MERCHANT_SUSPENDED


@pytest.mark.parametrize(
    ("the_merchant", "the_member"),
    [(SILENT, None), (SILENT, member(status=MemberStatus.FROZEN)), (merchant(), SILENT), (SILENT, SILENT)],
)
def test_no_check_after_a_missing_fact_is_made(
    the_merchant: Merchant | Missing, the_member: Member | Missing | None
) -> None:
    assert first_block(request(), order(), the_merchant, the_member, NOW) is None


def test_the_order_blocks_even_if_other_facts_are_missing() -> None:
    asked: ConsultRequest = request()
    paid: Order = order(status=OrderStatus.PAID)
    assert first_block(asked, paid, SILENT, SILENT, NOW) is Blocked.ORDER_PAID
