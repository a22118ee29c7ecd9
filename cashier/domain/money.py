"""Money: a currency and an integer number of its ISO 4217 minor units. Every rounding rule is here.

Never negative, never a float. A difference that could be negative (the rest of an overdrawn quota)
is clamped where it is computed.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from msgspec import Meta, Struct

# ISO 4217 active codes by number of minor digits (list one, 2026). Another currency is refused in a
# request and makes an upstream answer invalid: without its digits an amount has no meaning. Funds
# codes with four digits (CLF, UYW) are not payment currencies.
_Digits0 = Literal[
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF",
]  # fmt: skip
_Digits2 = Literal[
    "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BGN", "BMD", "BND", "BOB",
    "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHF", "CNY", "COP", "CRC", "CUP", "CVE", "CZK", "DKK",
    "DOP", "DZD", "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GTQ", "GYD", "HKD",
    "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IRR", "JMD", "KES", "KGS", "KHR", "KPW", "KYD", "KZT", "LAK", "LBP",
    "LKR", "LRD", "LSL", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR", "MWK", "MXN", "MYR",
    "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK", "PHP", "PKR", "PLN", "QAR", "RON", "RSD",
    "RUB", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE", "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL",
    "THB", "TJS", "TMT", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "USD", "UYU", "UZS", "VED", "VES", "WST", "XCD",
    "XCG", "YER", "ZAR", "ZMW", "ZWG",
]  # fmt: skip
_Digits3 = Literal["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]
Currency: TypeAlias = Literal[_Digits0, _Digits2, _Digits3]

DIGITS: dict[str, int] = {
    code: digits for digits, codes in ((0, _Digits0), (2, _Digits2), (3, _Digits3)) for code in get_args(codes)
}

# The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
MAX_VALUE = 2**53 - 1
BPS = 10_000


class Money(Struct, frozen=True, gc=False):
    """Minor units of a currency: `Money("JPY", 500)` is 500 yen, `Money("KWD", 500)` 0.5 dinars."""

    currency: Currency
    value: Annotated[int, Meta(ge=0, le=MAX_VALUE)]

    def __str__(self) -> str:
        """In major units, for people: `128.00 CNY`, `500 JPY`, `1.250 KWD`."""
        return f"{major_units(self)} {self.currency}"


def major_units(money: Money) -> str:
    """The amount as a decimal in major units, thousands grouped: `12,800.00`."""
    digits = DIGITS[money.currency]
    if not digits:
        return f"{money.value:,}"
    whole, part = divmod(money.value, 10**digits)
    return f"{whole:,}.{part:0{digits}d}"


def share_down(value: int, bps: int) -> int:
    """`bps` of `value`, rounded down: a discount never gives more than it promised."""
    return value * bps // BPS


def instalments(value: int, count: int) -> tuple[int, int]:
    """Each instalment but the last, and the last, which has the remainder: the sum is `value`."""
    each, remainder = divmod(value, count)
    return each, each + remainder


def share_half_up(value: int, bps: int) -> int:
    """`bps` of `value`, halves rounded up: the usual rule of fee tariffs."""
    return (value * bps + BPS // 2) // BPS


def in_steps_down(value: int, step: int) -> int:
    """The largest multiple of `step` up to `value`."""
    return value - value % step


def in_steps_up(value: int, step: int) -> int:
    """The smallest multiple of `step` from `value` on."""
    return value + -value % step


def stepped_fee(value: int, bps: int, step: int) -> int:
    """The fee on `value` over a channel that carries multiples of `step`: never more than due."""
    fee = share_half_up(value, bps)
    return fee - fee % step
