"""Amounts and times as the payer's language writes them. After Unicode CLDR 46.

The formats of a locale are in its texts. Pure: clocks of countries are offsets from UTC, for the
countries that have had one clock and no summer time for decades. Elsewhere times are in UTC and say
so.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from cashier.domain.money import DIGITS, Currency, Money

# CLDR shows no fraction of these, although ISO 4217 defines one: the minor units are not used. For
# TWD, CLDR drops it in cash only, but shops in Taiwan never write one. A fraction other than 0 is
# shown.
_WHOLE_UNITS = frozenset(
    {
        "AFN", "ALL", "COP", "HUF", "IDR", "IQD", "IRR", "KPW", "LAK", "LBP", "MGA", "MMK", "SOS", "SYP", "TWD", "YER",
    }
)  # fmt: skip
_HOURS_AHEAD = {
    "AE": 4, "BH": 3, "BN": 8, "CN": 8, "HK": 8, "JP": 9, "KR": 9, "KW": 3, "MO": 8, "MY": 8, "OM": 4, "PH": 8,
    "QA": 3, "SA": 3, "SG": 8, "TH": 7, "TW": 8, "VN": 7,
}  # fmt: skip
_CLOCKS = {
    country: timezone(timedelta(hours=hours), "") for country, hours in _HOURS_AHEAD.items()
} | {
    # The clock of Jakarta. Indonesia has three, so it is named.
    "ID": timezone(timedelta(hours=7), "WIB"),
}  # fmt: skip
_UTC = timezone(timedelta(0), "UTC")


class Formats(Struct, frozen=True, forbid_unknown_fields=True, eq=False):
    """How a locale writes amounts and times. Compared by identity: part of the key of a cache.

    `amount`: any currency, with `{number}` and `{code}`; `amounts`: single currencies. `time` and
    `time_other_year`: with `{year} {month} {month_name} {day} {hour} {minute}`, all but the name
    integers. `zoned`: with `{time}` and `{zone}`, where the clock has to be named. `months`: twelve
    names, or none.
    """

    decimal: str = "."
    group: str = ","
    amount: str = "{number} {code}"
    amounts: dict[Currency, str] = field(default_factory=dict)
    time: str = "{year}-{month:02}-{day:02} {hour:02}:{minute:02}"
    time_other_year: str = "{year}-{month:02}-{day:02} {hour:02}:{minute:02}"
    zoned: str = "{time} {zone}"
    months: Annotated[tuple[str, ...], Meta(max_length=12)] = ()

    def faults(self) -> Iterator[str]:
        """One sentence per pattern that cannot be filled in."""
        if len(self.months) not in (0, 12):
            yield f"months names {len(self.months)} of twelve"
        moment = _fields(datetime(2000, 1, 1, tzinfo=_UTC), self) | {"month_name": ""}
        amount = {"number": "1.50", "code": "XXX"}  # ISO 4217: no currency
        patterns: list[tuple[str, str, dict[str, Any]]] = [
            ("amount", self.amount, amount),
            *((f"amounts {currency}", pattern, amount) for currency, pattern in self.amounts.items()),
            ("time", self.time, moment),
            ("time_other_year", self.time_other_year, moment),
            ("zoned", self.zoned, {"time": "", "zone": ""}),
        ]
        for name, pattern, parts in patterns:
            try:
                filled = pattern.format(**parts)
                if parts is amount and amount["number"] not in filled:
                    yield f"{name}: {pattern!r} shows no {{number}}"
            except (LookupError, AttributeError, TypeError, ValueError) as fault:
                yield f"{name}: {pattern!r} cannot be filled in ({fault!r}); known are {', '.join(parts)}"


def format_amount(money: Money, formats: Formats) -> str:
    """As `¥50.00` or `Rp250.000`. Leaves out only a fraction that the currency never shows."""
    number = _number(money, formats.group, formats.decimal)
    return (formats.amounts.get(money.currency) or formats.amount).format(number=number, code=money.currency)


def plain_number(money: Money) -> str:
    """The amount as forms of banks take it: `50.00` or `250000`, in any language."""
    return _number(money, "", ".")


def _number(money: Money, group: str, decimal: str) -> str:
    digits = DIGITS[money.currency]
    whole, part = divmod(money.value, 10**digits)
    number = f"{whole:,}"
    if group != ",":
        number = number.replace(",", group)
    if part or (digits and money.currency not in _WHOLE_UNITS):
        number = f"{number}{decimal}{part:0{digits}d}"
    return number


def format_percentage(bps: int, formats: Formats) -> str:
    """Basis points as `13.70%` or `14%`."""
    whole, part = divmod(bps, 100)
    return f"{whole}{formats.decimal}{part:02d}".removesuffix(f"{formats.decimal}00") + "%"


def format_time(at: datetime, now: datetime, country: str, formats: Formats) -> str:
    """By the payer's clock, to the minute; with the year if it is not the present one.

    `country`: of the order, ISO 3166-1 alpha-2.
    """
    return _time_text(at, at.tzinfo, country, now.astimezone(_CLOCKS.get(country, _UTC)).year, formats)


@lru_cache(maxsize=1024)
def _time_text(at: datetime, own_clock: tzinfo | None, country: str, this_year: int, formats: Formats) -> str:
    """The end of a maintenance recurs in many consultations.

    The key holds the country, because equal clocks may differ in name, and `own_clock`, because
    equal times may differ in it.
    """
    local = _local(at, _CLOCKS.get(country, _UTC), own_clock)
    pattern = formats.time if local.year == this_year else formats.time_other_year
    time, zone = pattern.format(**_fields(local, formats)), local.tzname()
    return formats.zoned.format(time=time, zone=zone) if zone else time


def _local(at: datetime, clock: timezone, own_clock: tzinfo | None) -> datetime:
    """By its own clock if that of the country is beyond the calendar."""
    try:
        return at.astimezone(clock)
    except OverflowError:
        return at.astimezone(own_clock)


def _fields(local: datetime, formats: Formats) -> dict[str, Any]:
    return {
        "year": local.year,
        "month": local.month,
        "month_name": formats.months[local.month - 1] if formats.months else "",
        "day": local.day,
        "hour": local.hour,
        "minute": local.minute,
    }
