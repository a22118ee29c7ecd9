"""Amounts and times as each language writes them. Expected values: Unicode CLDR."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.local_format import Formats, format_amount, format_time, plain_number
from cashier.domain.money import DIGITS, MAX_VALUE, Currency, Money
from tests.domain.builders import CATALOG

CURRENCIES: tuple[Currency, ...] = tuple(DIGITS)  # type: ignore[arg-type]  # all its keys are
NOW = datetime(2026, 11, 29, 18, 28, tzinfo=UTC)


def formats(locale: str) -> Formats:
    return CATALOG.texts[locale].formats


@pytest.mark.parametrize(
    ("locale", "currency", "value", "expected"),
    [
        ("zh-CN", "CNY", 5_000, "¥50.00"),
        ("zh-CN", "CNY", 0, "¥0.00"),
        ("zh-CN", "CNY", 1, "¥0.01"),
        ("zh-CN", "CNY", 123_456_789, "¥1,234,567.89"),
        ("zh-CN", "USD", 5_000, "US$50.00"),
        ("zh-CN", "HKD", 5_000, "HK$50.00"),
        ("zh-CN", "JPY", 500, "JP¥500"),
        ("zh-CN", "KWD", 12_750, "KWD\u00a012.750"),
        ("en", "CNY", 5_000, "CN¥50.00"),
        ("en", "USD", 123_456, "$1,234.56"),
        ("en", "IDR", 25_000_000, "IDR\u00a0250,000"),
        ("en", "IDR", 12_468_955, "IDR\u00a0124,689.55"),
    ],
)
def test_an_amount_is_written_as_its_readers_write_it(
    locale: str, currency: Currency, value: int, expected: str
) -> None:
    assert format_amount(Money(currency, value), formats(locale)) == expected


@given(st.sampled_from(sorted(CATALOG.texts)), st.sampled_from(CURRENCIES), st.integers(0, MAX_VALUE))
def test_no_minor_unit_is_lost_in_any_locale(locale: str, currency: Currency, value: int) -> None:
    used = formats(locale)
    written = format_amount(Money(currency, value), used)
    # Some currency signs contain the decimal separator, as `د.ك.` does.
    frame = format_amount(Money(currency, 0), used).partition("0")
    number = written.removeprefix(frame[0])
    digits = "".join(character for character in number if character.isascii() and character.isdigit())
    scale = 10 ** DIGITS[currency]
    assert int(digits) == (value if len(digits) > DIGITS[currency] and used.decimal in number else value // scale)
    assert value % scale == 0 or int(digits) == value


@pytest.mark.parametrize(
    ("locale", "country", "at", "expected"),
    [
        ("zh-CN", "CN", NOW, "11月30日 02:28"),
        ("zh-CN", "CN", NOW + timedelta(days=40), "2027年1月9日 02:28"),
        ("en", "CN", NOW, "Nov 30, 02:28"),
        ("en", "HK", NOW + timedelta(days=40), "Jan 9, 2027, 02:28"),
        ("en", "JP", NOW, "Nov 30, 03:28"),
        ("en", "KW", NOW, "Nov 29, 21:28"),
        ("en", "ID", NOW, "Nov 30, 01:28 WIB"),
        ("en", "GB", NOW, "Nov 29, 18:28 UTC"),
        ("zh-CN", "GB", NOW, "11月29日 18:28 UTC"),
        ("en", "XX", NOW.astimezone(timezone(timedelta(hours=-11))), "Nov 29, 18:28 UTC"),
    ],
)
def test_a_time_is_by_the_clock_of_the_orders_country(locale: str, country: str, at: datetime, expected: str) -> None:
    assert format_time(at, NOW, country, formats(locale)) == expected


def test_the_year_is_compared_by_the_payers_clock() -> None:
    new_year_in_china = datetime(2026, 12, 31, 16, 30, tzinfo=UTC)
    before, after = new_year_in_china - timedelta(hours=1), new_year_in_china + timedelta(hours=1)
    assert format_time(new_year_in_china, before, "CN", formats("zh-CN")) == "2027年1月1日 00:30"
    assert format_time(new_year_in_china, after, "CN", formats("zh-CN")) == "1月1日 00:30"
    assert format_time(new_year_in_china, before, "GB", formats("zh-CN")) == "12月31日 16:30 UTC"


@pytest.mark.parametrize(
    "at",
    [
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    ],
)
@pytest.mark.parametrize("country", ["CN", "GB"])
def test_a_time_at_the_end_of_the_calendar_is_shown_and_does_not_raise(at: datetime, country: str) -> None:
    assert str(at.year) in format_time(at, NOW, country, formats("en"))


def test_equal_times_and_clocks_are_shown_by_their_own_names() -> None:
    """Texts of times are cached, and what Python calls equal may not read the same."""
    shown = [format_time(NOW, NOW, country, formats("en")) for country in ("TH", "ID", "VN", "XX", "TH")]
    assert shown == [f"Nov 30, 01:28{zone}" for zone in ("", " WIB", "")] + ["Nov 29, 18:28 UTC", "Nov 30, 01:28"]
    last = datetime.max.replace(hour=20, tzinfo=timezone(timedelta(hours=-2)))
    same = last.astimezone(timezone(timedelta(hours=1)))
    assert last == same
    assert format_time(last, NOW, "CN", formats("en")) == "Dec 31, 9999, 20:59 UTC-02:00"
    assert format_time(same, NOW, "CN", formats("en")) == "Dec 31, 9999, 23:59 UTC+01:00"


HOURS_FROM_UTC = st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours)))
# Few times and clocks, so that equal ones meet in the cache.
TIMES = st.builds(
    lambda at, clock: at.astimezone(clock),
    st.sampled_from([NOW, NOW + timedelta(days=40), NOW.replace(year=2026, month=12, day=31, hour=20)]),
    HOURS_FROM_UTC,
)


@given(TIMES, TIMES, st.sampled_from(["CN", "ID", "TH", "VN", "KW", "GB"]), st.sampled_from(sorted(CATALOG.texts)))
def test_a_cached_text_of_a_time_is_the_one_that_would_be_written_now(
    at: datetime, now: datetime, country: str, locale: str
) -> None:
    never_used = structs.replace(formats(locale))
    assert format_time(at, now, country, formats(locale)) == format_time(at, now, country, never_used)


def test_every_currency_and_month_has_a_form_in_every_locale() -> None:
    for locale in CATALOG.texts:
        for currency in CURRENCIES:
            assert "1" in format_amount(Money(currency, 10 ** DIGITS[currency]), formats(locale))
        months = {format_time(NOW.replace(day=1, month=month), NOW, "CN", formats(locale)) for month in range(1, 13)}
        assert len(months) == 12


@pytest.mark.parametrize("formats", [Formats(amount="{code}"), Formats(amounts={"CNY": "¥"})])
def test_a_pattern_that_shows_no_amount_is_a_fault(formats: Formats) -> None:
    (fault,) = formats.faults()
    assert "shows no {number}" in fault


@pytest.mark.parametrize(
    ("money", "expected"),
    [
        (Money("CNY", 1_234_500), "12345.00"),
        (Money("IDR", 25_000_000), "250000"),
        (Money("JPY", 1_200), "1200"),
        (Money("KWD", 1_005), "1.005"),
    ],
)
def test_a_copied_amount_is_a_number_that_a_banks_form_takes(money: Money, expected: str) -> None:
    assert plain_number(money) == expected
