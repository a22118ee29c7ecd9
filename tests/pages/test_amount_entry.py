"""Amounts that people type."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.local_format import Formats
from cashier.domain.money import DIGITS, Currency, Money
from cashier.pages.amount_entry import parse_amount

POINT, COMMA = Formats(), Formats(decimal=",", group=".")


@pytest.mark.parametrize(
    ("text", "currency", "formats", "value"),
    [
        ("12", "CNY", POINT, 1200),
        ("12.5", "CNY", POINT, 1250),
        ("0.05", "CNY", POINT, 5),
        ("1,234.50", "CNY", POINT, 123_450),
        (" 12 . 50 ", "CNY", POINT, 1250),
        ("１２．５０", "CNY", POINT, 1250),
        ("١٢٫٥٠", "CNY", POINT, 1250),
        ("\u200f١٬٢٣٤٫٥\u200f", "CNY", POINT, 123_450),
        ("250.000", "IDR", COMMA, 25_000_000),
        ("12,5", "IDR", COMMA, 1250),
        ("4980", "JPY", POINT, 4980),
        ("4,980", "JPY", POINT, 4980),
        ("1.250", "KWD", POINT, 1250),
        ("1 234.50", "CNY", POINT, 123_450),
        ("1\u00a0234\u202f567", "CNY", POINT, 123_456_700),
        ("1 , 234 . 5", "CNY", POINT, 123_450),
        ("1 234,5", "IDR", COMMA, 123_450),
    ],
)
def test_an_amount_is_read_as_its_language_writes_it(
    text: str, currency: Currency, formats: Formats, value: int
) -> None:
    assert parse_amount(text, currency, formats) == Money(currency, value)


@pytest.mark.parametrize(
    ("text", "currency", "formats"),
    [
        ("", "CNY", POINT),
        ("0", "CNY", POINT),
        ("0.00", "CNY", POINT),
        ("-5", "CNY", POINT),
        ("1e3", "CNY", POINT),
        ("12.505", "CNY", POINT),
        ("12,5", "CNY", POINT),
        ("12.50", "IDR", COMMA),
        ("1,23,456", "CNY", POINT),
        ("12 50", "CNY", POINT),
        ("1 2", "JPY", POINT),
        ("12\u00a050", "CNY", POINT),
        ("1,234 567", "CNY", POINT),
        ("1 234 56", "CNY", POINT),
        ("0,123", "CNY", POINT),
        ("0 500", "CNY", POINT),
        ("12.5 0", "CNY", POINT),
        ("12..5", "CNY", POINT),
        ("1.234.5", "CNY", POINT),
        (".5", "CNY", POINT),
        ("5.", "CNY", POINT),
        ("4980.5", "JPY", POINT),
        ("¥12", "CNY", POINT),
        ("²", "CNY", POINT),
        ("九", "CNY", POINT),
        ("9" * 17, "CNY", POINT),
        ("1" * 33, "CNY", POINT),
    ],
)
def test_what_is_ambiguous_or_no_amount_is_refused(text: str, currency: Currency, formats: Formats) -> None:
    assert parse_amount(text, currency, formats) is None


def test_every_currency_can_be_entered() -> None:
    for currency, digits in DIGITS.items():
        money = parse_amount("7", currency, POINT)  # type: ignore[arg-type]
        assert money is not None
        assert money.value == 7 * 10**digits


@given(st.text("0123456789., \u00a0\u202f\u066b\u0661\uff11-+eE", max_size=14))
def test_an_amount_has_the_digits_that_were_typed_and_no_others(text: str) -> None:
    """Whatever stands between them: no digit is dropped, added or moved by a separator."""
    money = parse_amount(text, "CNY", POINT)
    if money is None:
        return
    digits = "".join(str(int(sign)) for sign in text if sign.isdecimal())
    places = re.split(r"[.\u066b]", text)
    assert len(places) <= 2
    part = "".join(str(int(sign)) for sign in places[1] if sign.isdecimal()) if len(places) == 2 else ""
    assert money.value == int(digits) * 10 ** (2 - len(part))
    assert not re.search(r"\d[\s,]+\d{1,2}(?!\d)", places[0]), "a group has three digits"
