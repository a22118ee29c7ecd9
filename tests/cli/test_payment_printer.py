"""Printed payments: the price of the chosen method."""

from __future__ import annotations

from cashier.cli.payment_printer import price_breakdown
from tests.support.scripted_service import amount


def test_a_price_shows_what_is_taken_and_added() -> None:
    assert price_breakdown(amount(11_930, fee=130, p_1=1_000)).plain == "128.00 − 10.00 + 1.30 fee = 119.30 CNY"
    assert price_breakdown(amount(12_930, fee=130)).plain == "128.00 + 1.30 fee = 129.30 CNY"


def test_a_price_without_discount_and_fee_is_shown_once() -> None:
    assert price_breakdown(amount(12_800)).plain == "128.00 CNY"
