"""The packaged texts: complete and alike in every locale, and short enough for a checkout."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from string import Formatter
from typing import Any

import msgspec
import pytest

from cashier.domain.local_format import format_amount, format_time
from cashier.domain.money import DIGITS, Currency, Money
from cashier.settings.loader import packaged
from tests.domain.builders import CATALOG

LOCALES = ("ar", "en", "id", "ja", "zh-CN", "zh-TW")
NOW = datetime(2026, 11, 29, 18, 28, tzinfo=UTC)
# Names that Chinese, Japanese and Arabic readers know in Latin letters.
LATIN_NAMES = {"SMS"}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text by its path."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flat(part, f"{path}.{key}" if path else key)
    elif isinstance(value, str):
        yield path, value


def texts(locale: str) -> dict[str, str]:
    table = packaged("texts.toml")[locale]
    return dict(flat({key: part for key, part in table.items() if key != "formats"}))


def fields(text: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(text) if field is not None}


def test_these_locales_are_packaged_without_a_fault() -> None:
    assert tuple(CATALOG.texts) == LOCALES
    assert CATALOG.faults() == []


@pytest.mark.parametrize("locale", LOCALES)
def test_a_locale_has_the_texts_and_placeholders_of_the_english_ones(locale: str) -> None:
    english, local = texts("en"), texts(locale)
    assert local.keys() == english.keys()
    titles = {path for path in english if path.endswith(".title")}
    for path in english.keys() - titles:
        assert fields(local[path]) == fields(english[path]), path
    for path in titles:
        assert fields(local[path]) <= fields(english[path]) | {"bank_name", "provider_name"}, path


@pytest.mark.parametrize("locale", LOCALES)
def test_texts_are_clean(locale: str) -> None:
    for path, text in texts(locale).items():
        assert text == text.strip(), path
        assert "  " not in text, path
        assert unicodedata.normalize("NFC", text) == text, path


@pytest.mark.parametrize(
    ("locale", "most"), [("en", 40), ("id", 40), ("ar", 44), ("ja", 26), ("zh-CN", 20), ("zh-TW", 20)]
)
def test_a_reason_fits_into_a_line_of_a_checkout(locale: str, most: int) -> None:
    """With an amount and a time of usual length."""
    wording = CATALOG.texts[locale]
    amount = format_amount(Money("JPY" if locale == "ja" else "CNY", 10_000), wording.formats)
    until = format_time(NOW, NOW, "CN", wording.formats)
    for path, text in texts(locale).items():
        if path.startswith("reasons."):
            shown = text.format(amount=amount, until=until, source="")
            length = sum(not unicodedata.category(character).startswith("C") for character in shown)
            assert length <= most, (path, shown)


@pytest.mark.parametrize("locale", ["zh-CN", "zh-TW", "ja", "ar"])
def test_no_latin_word_is_left_in_other_scripts(locale: str) -> None:
    for path, text in texts(locale).items():
        words = re.findall(r"[A-Za-z]+", re.sub(r"\{\w*\}", "", text))
        assert set(words) <= LATIN_NAMES, path


def test_taiwan_reads_traditional_characters_and_its_own_words() -> None:
    text = "".join(texts("zh-TW").values())
    text.encode("big5")  # has no characters that only simplified Chinese uses
    text = text.replace("行動支付", "")  # the usual word for wallets
    mainland = (
        "支付",
        "商戶",
        "默認",
        "信息",
        "質量",
        "網絡",
        "短信",
        "刷新",
        "儲蓄卡",
        "用戶",
        "后",
        "余",
        "里",
        "准",
    )
    assert [word for word in mainland if word in text] == []


def test_the_mainland_reads_simplified_characters() -> None:
    "".join(texts("zh-CN").values()).encode("gb2312")  # has no characters that only traditional Chinese uses


RTL = ("R", "AL")


def unisolated(text: str) -> str:
    """The text outside of isolates."""
    depth, kept = 0, []
    for character in text:
        if character in "\u2066\u2067\u2068":
            depth += 1
        elif character == "\u2069":
            depth -= 1
            assert depth >= 0, text
        elif not depth:
            kept.append(character)
    assert depth == 0, text
    return "".join(kept)


def strong(text: str) -> set[str]:
    return {kind for character in text if (kind := unicodedata.bidirectional(character)) in ("L", *RTL)}


def test_arabic_texts_run_from_right_to_left_and_isolate_what_does_not() -> None:
    for path, text in texts("ar").items():
        outside = unisolated(text)
        assert strong(re.sub(r"\{\w*\}", "", outside)) <= set(RTL), path
        # What comes from upstreams, and digits in brackets, have any direction.
        assert fields(outside).isdisjoint({"bank_name", "provider_name", "last4", "promotion"}), path


@pytest.mark.parametrize("currency", sorted(DIGITS))
def test_an_arabic_amount_is_isolated_as_a_whole(currency: Currency) -> None:
    shown = format_amount(Money(currency, 1_234_567), CATALOG.texts["ar"].formats)
    assert unisolated(shown) == ""
    opened = "\u2067" if strong(shown) & set(RTL) else "\u2066"
    assert shown.startswith(opened), "the direction of its sign"


@pytest.mark.parametrize("country", ["KW", "GB", "ID"])
def test_an_arabic_time_leaves_no_left_to_right_part_outside(country: str) -> None:
    formats = CATALOG.texts["ar"].formats
    for at in (NOW, NOW + timedelta(days=400)):
        assert strong(unisolated(format_time(at, NOW, country, formats))) <= set(RTL)


@pytest.mark.parametrize(
    ("locale", "currency", "value", "expected"),
    [
        ("zh-TW", "TWD", 199_000, "NT$1,990"),
        ("zh-TW", "TWD", 199_050, "NT$1,990.50"),
        ("zh-TW", "CNY", 5_000, "CN¥50.00"),
        ("zh-TW", "HKD", 5_000, "HK$50.00"),
        ("id", "IDR", 25_000_000, "Rp250.000"),
        ("id", "IDR", 12_468_955, "Rp124.689,55"),
        ("id", "USD", 123_456, "US$1.234,56"),
        ("ja", "JPY", 4_980, "4,980円"),
        ("ja", "USD", 123_456, "$1,234.56"),
        ("ar", "KWD", 12_750, "\u206712.750\u00a0د.ك.\u2069"),
        ("ar", "USD", 123_456, "\u2066US$1,234.56\u2069"),
        ("ar", "SGD", 123_456, "\u2066SGD\u00a01,234.56\u2069"),
    ],
)
def test_amounts_of_the_other_locales(locale: str, currency: Currency, value: int, expected: str) -> None:
    assert format_amount(Money(currency, value), CATALOG.texts[locale].formats) == expected


@pytest.mark.parametrize(
    ("locale", "country", "expected"),
    [
        ("zh-TW", "TW", "11月30日 02:28"),
        ("id", "ID", "30 Nov, 01.28 WIB"),
        ("ja", "JP", "11月30日 3:28"),
        ("ar", "KW", "29 نوفمبر، \u206621:28\u2069"),
        ("ar", "GB", "29 نوفمبر، \u206618:28\u2069 \u2066UTC\u2069"),
    ],
)
def test_times_of_the_other_locales(locale: str, country: str, expected: str) -> None:
    assert format_time(NOW, NOW, country, CATALOG.texts[locale].formats) == expected


def test_an_operator_can_add_a_locale_by_the_tables_that_were_always_required() -> None:
    """Without formats, problems, changes and kinds; the kinds are then named in methods.toml."""
    table = packaged("texts.toml")["en"]
    old = {key: table[key] for key in ("combined", "reasons", "blocked", "card_types", "accounts", "payments")}
    wording = msgspec.convert(old, type(CATALOG.texts["en"]))
    assert list(wording.faults("fr", set(CATALOG.methods))) == []
    assert format_amount(Money("CNY", 5_000), wording.formats) == "50.00 CNY"
    assert format_time(NOW, NOW, "CN", wording.formats) == "2026-11-30 02:28"
