"""Texts of the pages: labels that never depend on a payment, one TOML file per locale.

What depends on a payment (titles, reasons, messages, amounts, times) comes from the core.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from types import SimpleNamespace

from cashier.domain.locale_match import nearest

_RIGHT_TO_LEFT = frozenset({"ar"})
DEFAULT_LOCALE = "en"


def _loaded() -> dict[str, SimpleNamespace]:
    found = (file for file in files(__name__).iterdir() if file.name.endswith(".toml"))
    return {
        file.name.removesuffix(".toml"): SimpleNamespace(**tomllib.loads(file.read_text("utf-8"))) for file in found
    }


PAGE_TEXTS: Mapping[str, SimpleNamespace] = _loaded()


def page_locale(wanted: str) -> str:
    """The nearest locale with texts, else English."""
    return wanted if wanted in PAGE_TEXTS else nearest(wanted, PAGE_TEXTS) or DEFAULT_LOCALE


def direction(locale: str) -> str:
    return "rtl" if locale in _RIGHT_TO_LEFT else "ltr"
