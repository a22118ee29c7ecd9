"""Money in its display form, and the two roundings."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.money import DIGITS, MAX_VALUE, Money, share_down, share_half_up
from cashier.domain.order import MAX_ORDER_VALUE
from tests.domain.builders import order

VALUES = st.integers(0, MAX_VALUE)
RATES = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("money", "text"),
    [
        (Money("JPY", 500), "500 JPY"),
        (Money("JPY", 0), "0 JPY"),
        (Money("JPY", 1_234_567), "1,234,567 JPY"),
        (Money("CNY", 12_800), "128.00 CNY"),
        (Money("CNY", 5), "0.05 CNY"),
        (Money("CNY", 1_280_000), "12,800.00 CNY"),
        (Money("KWD", 1_250), "1.250 KWD"),
        (Money("KWD", 7), "0.007 KWD"),
        (Money("USD", MAX_VALUE), "90,071,992,547,409.91 USD"),
    ],
)
def test_money_reads_in_major_units_with_the_digits_of_its_currency(money: Money, text: str) -> None:
    assert str(money) == text


def test_the_currencies_with_other_digits_than_two_are_known() -> None:
    assert (DIGITS["JPY"], DIGITS["KRW"], DIGITS["VND"]) == (0, 0, 0)
    assert (DIGITS["CNY"], DIGITS["IDR"], DIGITS["HKD"]) == (2, 2, 2)
    assert (DIGITS["KWD"], DIGITS["BHD"], DIGITS["JOD"]) == (3, 3, 3)


@pytest.mark.parametrize(
    "wire",
    [
        b'{"currency":"XXX","value":1}',
        b'{"currency":"cny","value":1}',
        b'{"currency":"CNY","value":-1}',
        b'{"currency":"CNY","value":1.5}',
        b'{"currency":"CNY","value":"1"}',
        b'{"currency":"CNY","value":9007199254740992}',
        b'{"currency":"CNY"}',
    ],
)
def test_an_invalid_amount_of_money_is_not_decoded(wire: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wire, type=Money)


@given(VALUES, RATES)
def test_a_share_rounded_down_never_promises_more_and_misses_less_than_a_unit(value: int, bps: int) -> None:
    assert 0 <= value * bps - share_down(value, bps) * 10_000 < 10_000


@given(VALUES, RATES)
def test_a_share_rounded_half_up_is_at_most_half_a_unit_off_and_goes_up_at_the_half(value: int, bps: int) -> None:
    assert -5_000 <= value * bps - share_half_up(value, bps) * 10_000 < 5_000


def test_an_order_leaves_room_for_its_fee_below_what_json_keeps_exact() -> None:
    largest = Money("CNY", MAX_ORDER_VALUE)
    assert order(largest).amount.value + share_half_up(MAX_ORDER_VALUE, 10_000) <= MAX_VALUE
    with pytest.raises(ValueError, match="leaves no room for a fee"):
        order(Money("CNY", MAX_ORDER_VALUE + 1))
