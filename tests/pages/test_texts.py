"""The texts of the pages: complete in every language, and each of them in use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter

import pytest

from cashier.pages.checkout_view import REMEDIES
from cashier.pages.texts import PAGE_TEXTS, direction, page_locale
from cashier.pages.views import Outcome
from tests.pages.gallery import LOCALES

PAGES = Path(__file__).parents[2] / "cashier" / "pages"


def texts(locale: str) -> Mapping[str, str]:
    return vars(PAGE_TEXTS[locale])


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def test_the_languages_are_those_of_the_core() -> None:
    assert set(PAGE_TEXTS) == set(LOCALES)


@pytest.mark.parametrize("locale", LOCALES)
def test_each_language_has_the_same_keys_and_placeholders(locale: str) -> None:
    wanted = {key: placeholders(text) for key, text in texts("en").items()}
    assert {key: placeholders(text) for key, text in texts(locale).items()} == wanted


@pytest.mark.parametrize("locale", LOCALES)
def test_no_text_is_empty_or_has_markup(locale: str) -> None:
    for key, text in texts(locale).items():
        assert text == text.strip() != "", key
        assert not re.search(r"[<>&]", text), key


def test_templates_name_known_texts_only() -> None:
    templates = "".join(file.read_text() for file in PAGES.rglob("*.html"))
    assert set(re.findall(r"\bt\.(\w+)", templates)) - {"format"} <= set(texts("en"))


def test_every_text_is_in_use() -> None:
    code = "".join(file.read_text() for file in PAGES.rglob("*") if file.suffix in (".html", ".py"))
    named = {key for key in texts("en") if re.search(rf"\b{key}\b", code)}
    # Named by the value of an enumeration.
    composed = {f"outcome_{each}" for each in Outcome} | {f"remedy_{each.lower()}" for each in REMEDIES}
    assert set(texts("en")) == named | composed


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("zh", "zh-CN"), ("zh-HK", "zh-TW"), ("ar-KW", "ar"), ("id-ID", "id"), ("fr", "en"), ("<script>", "en")],
)
def test_an_unknown_language_falls_back(wanted: str, found: str) -> None:
    assert page_locale(wanted) == found


def test_arabic_is_written_from_right_to_left() -> None:
    assert [locale for locale in LOCALES if direction(locale) == "rtl"] == ["ar"]
