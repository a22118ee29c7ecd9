"""The nearest known locale."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.locale_match import accepted_languages, nearest
from tests.domain.builders import CATALOG

KNOWN = ("ar", "en", "id", "ja", "zh-CN", "zh-TW")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("zh-CN", "zh-CN"),
        ("zh", "zh-CN"),
        ("zh-Hans", "zh-CN"),
        ("zh-SG", "zh-CN"),
        ("zh-MY", "zh-CN"),
        ("zh-Hans-HK", "zh-CN"),
        ("zh-Hans-CN", "zh-CN"),
        ("cmn", "zh-CN"),
        ("cmn-Hans-CN", "zh-CN"),
        ("zh-TW", "zh-TW"),
        ("zh-HK", "zh-TW"),
        ("zh-MO", "zh-TW"),
        ("zh-Hant", "zh-TW"),
        ("zh-Hant-HK", "zh-TW"),
        ("zh-Hant-CN", "zh-TW"),
        ("yue", "zh-TW"),
        ("yue-HK", "zh-TW"),
        ("en-GB", "en"),
        ("en-US", "en"),
        ("in", "id"),
        ("in-ID", "id"),
        ("id-ID", "id"),
        ("ja-JP", "ja"),
        ("ja-JP-JP", "ja"),
        ("ar-KW", "ar"),
        ("ar-001", "ar"),
        ("ar-EG", "ar"),
        ("fr", None),
        ("e", None),
        ("zho", None),
    ],
)
@pytest.mark.parametrize("form", [str, str.lower, str.upper, str.swapcase, lambda tag: tag.replace("-", "_")])
def test_the_nearest_locale_is_found_in_any_spelling(wanted: str, expected: str | None, form: object) -> None:
    assert callable(form)
    assert nearest(form(wanted), KNOWN) == expected


@pytest.mark.parametrize(
    ("wanted", "known", "expected"),
    [
        ("zh-TW", ("zh-CN", "en"), "zh-CN"),
        ("zh-HK", ("zh-CN", "zh-TW", "zh-HK"), "zh-HK"),
        ("zh-Hant-HK", ("zh-CN", "zh-TW", "zh-HK"), "zh-HK"),
        ("zh-MO", ("zh-CN", "zh-Hant", "zh-HK"), "zh-Hant"),
        ("zh_tw", ("zh-CN", "zh-TW"), "zh-TW"),
        ("en-GB", ("en-US", "en-AU"), "en-US"),
        ("en-GB", ("en-US", "en"), "en"),
        ("en-GB", ("en", "en-GB"), "en-GB"),
        ("pt", ("pt-BR", "pt-PT"), "pt-BR"),
        ("id", ("in",), "in"),
        ("sr-Latn-RS", ("sr", "en"), "sr"),
        ("en", (), None),
    ],
)
def test_the_script_decides_before_the_region_and_both_before_nothing(
    wanted: str, known: tuple[str, ...], expected: str | None
) -> None:
    assert nearest(wanted, known) == expected


def test_an_unknown_locale_reads_the_default() -> None:
    assert CATALOG.locale("fr") == CATALOG.locale(None) == CATALOG.default_locale
    assert CATALOG.locale("zh_cn") == "zh-CN"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", ["zh-CN", "zh", "en"]),
        ("en;q=0.1, ja ; q = 0.9, *;q=0.5", ["ja", "en"]),
        ("fr;q=0, en", ["en"]),
        ("en;q=nan, ja;q=2, id;q=-1, ar;level=1, zh;q=x", []),
        ("", []),
        (",;q=1,=,*", []),
        ("en" + ",ja" * 10_000, None),
    ],
)
def test_accepted_languages_are_read_by_their_weight(header: str, expected: list[str] | None) -> None:
    found = list(accepted_languages(header))
    assert found == expected if expected is not None else found[0] == "en" and len(found) == 16


@given(st.text(max_size=600))
def test_no_header_and_no_locale_raises(text: str) -> None:
    for locale in [text, *accepted_languages(text)]:
        assert nearest(locale, KNOWN) in (*KNOWN, None)
