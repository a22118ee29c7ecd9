"""Operators' files from before the packaged ones gained entries still start, and mean the same.

Works on tables as read, before their types are checked, and leaves malformed entries unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cashier.domain.catalog import Methods
from cashier.domain.text_form import Form

# Of the locale that fills what an operator's own locale lacks.
FILLS = "en"


def completed(name: str, packaged: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The operator's file of this name, completed. The packaged values are not merged yet."""
    complete = _BY_FILE.get(name)
    return dict(own) if complete is None else complete(packaged, own)


def lacking(packaged: Mapping[str, Any], own: Mapping[str, Any], methods: Methods) -> Iterator[str]:
    """One warning per table of an operator's own locale that English texts complete.

    `methods`: their terms may name kinds in that locale.
    """
    for locale, table, filled in _own_tables(packaged, own):
        named = {kind for kind, terms in methods.items() if locale in terms.name and locale in terms.title}
        missing = [code for code in packaged[FILLS][table] if code not in filled and code not in named]
        if missing:
            yield f"texts.toml: [{locale}.{table}] has no {', '.join(missing)}: payers read English there"


def _own_tables(packaged: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The tables of texts by code of the locales that are not packaged."""
    for locale, tables in own.items():
        if locale not in packaged and isinstance(tables, Mapping):
            for name in ("reasons", "blocked", "payments", "kinds"):
                table = tables.get(name, {} if name == "kinds" else None)
                if isinstance(table, Mapping):
                    yield locale, name, table


def _texts(packaged: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A plain text says nothing of money that has no way back.

    That form of the packaged text stays; every other form is replaced. Codes that an own locale
    lacks are in English.
    """
    complete = dict(own)
    for locale, name, table in _own_tables(packaged, own):
        complete[locale] = {**complete[locale], name: {**packaged[FILLS][name], **table}}
    for locale, tables in complete.items():
        kept = packaged.get(locale, packaged[FILLS])["payments"]
        payments = tables.get("payments") if isinstance(tables, Mapping) else None
        if isinstance(payments, Mapping):
            forms = {code: _with_form(kept.get(code), text) for code, text in payments.items()}
            complete[locale] = {**tables, "payments": forms}
    return complete


def _with_form(packaged: Any, own: Any) -> Any:
    form = packaged.get(Form.NO_WAY_BACK) if isinstance(packaged, Mapping) else None
    return own if form is None or not isinstance(own, str) else {Form.GENERAL.value: own, Form.NO_WAY_BACK.value: form}


def _methods(packaged: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A shorter lifetime cuts the time that the packaged terms say a payer needs."""
    complete = dict(own)
    for kind, terms in own.items():
        if isinstance(terms, Mapping) and "needs_s" not in terms:
            lifetime_s, needs_s = terms.get("expires_in_s"), packaged.get(kind, {}).get("needs_s", 1)
            if isinstance(lifetime_s, int) and 0 < lifetime_s < needs_s:
                complete[kind] = {**terms, "needs_s": lifetime_s}
    return complete


_BY_FILE: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "texts.toml": _texts,
    "methods.toml": _methods,
}
