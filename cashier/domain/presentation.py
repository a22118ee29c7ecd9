"""Titles, icons and display instruments of payment methods.

Providers are few and recur in every consultation, so their presentations are cached. Nothing that
belongs to a payer is cached.
"""

from __future__ import annotations

from functools import lru_cache
from string import Formatter

from msgspec import Struct

from cashier.domain.catalog import TITLE_PARTS
from cashier.domain.pay_method import Instrument, Kind

_EMPTY_PARTS = dict.fromkeys(TITLE_PARTS, "")


class Presentation(Struct, frozen=True, gc=False):
    """How a payment method of one provider is shown, the same for every payer."""

    method_id: str
    title: str
    icon: str
    instrument: Instrument


@lru_cache(maxsize=4096)
def provider_presentation(
    kind: Kind, title_template: str, icon_template: str, provider: str, provider_name: str
) -> Presentation:
    """Templates are the catalog's."""
    return Presentation(
        f"{kind}:{provider}",
        _fill(title_template, bank_name=provider_name, provider_name=provider_name),
        icon(icon_template, provider),
        Instrument(provider),
    )


@lru_cache(maxsize=1024)
def account_title_and_icon(
    title_template: str, icon_template: str, account_type: str, account_name: str
) -> tuple[str, str]:
    """The same for every account of a type."""
    return _fill(title_template, account=account_name), icon(icon_template, account_type)


def card_title(title_template: str, bank_name: str, type_name: str, last4: str) -> str:
    """Insert `last4` last: it is the payer's, and must stay out of the cache."""
    pieces = _around_last4(title_template, bank_name, type_name)
    if pieces is None:
        return _fill(title_template, bank_name=bank_name, provider_name=bank_name, type=type_name, last4=last4)
    return last4.join(pieces)


@lru_cache(maxsize=4096)
def _around_last4(title_template: str, bank_name: str, type_name: str) -> tuple[str, ...] | None:
    """The pieces around each `{last4}`; None if the template gives it a format or a conversion."""
    pieces = [""]
    for literal, field, spec, conversion in Formatter().parse(title_template):
        pieces[-1] += literal
        if field == "last4" and not spec and conversion is None:
            pieces.append("")
        elif field == "last4" or "last4" in (spec or ""):
            return None
        elif field is not None:
            part = f"{{{field}{'' if conversion is None else '!' + conversion}:{spec}}}"
            pieces[-1] += _fill(part, bank_name=bank_name, provider_name=bank_name, type=type_name)
    return tuple(pieces)


def _fill(template: str, **parts: str) -> str:
    return template.format(**(_EMPTY_PARTS | parts))


@lru_cache(maxsize=4096)
def icon(template: str, name: str = "") -> str:
    """`name`: the bank, the provider or the account type that the icon stands for."""
    return template.format(provider=name.lower())
