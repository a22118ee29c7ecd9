"""Face: how a way to pay presents itself, where that is the same for every payer.

Providers are few and come again with every consultation, so their faces are kept; nothing of a payer's is.
"""

from __future__ import annotations

from functools import lru_cache
from string import Formatter

from msgspec import Struct

from cashier.domain.catalog import TITLE_PARTS
from cashier.domain.pay_method import Instrument, Kind

_WITHOUT = dict.fromkeys(TITLE_PARTS, "")


class Presentation(Struct, frozen=True, gc=False):
    method_id: str
    title: str
    icon: str
    instrument: Instrument


@lru_cache(maxsize=4096)
def of_provider(kind: Kind, title: str, icon_template: str, provider: str, provider_name: str) -> Presentation:
    """`title` and `icon_template` as the catalog has them."""
    return Presentation(
        f"{kind}:{provider}",
        _filled(title, bank_name=provider_name, provider_name=provider_name),
        icon(icon_template, provider),
        Instrument(provider),
    )


@lru_cache(maxsize=1024)
def of_account(title: str, icon_template: str, account_type: str, account_name: str) -> tuple[str, str]:
    """Title and icon of every account of a type."""
    return _filled(title, account=account_name), icon(icon_template, account_type)


def card_title(title: str, bank_name: str, type_name: str, last4: str) -> str:
    """What of it is the payer's is filled in last and not kept."""
    pieces = _around_last4(title, bank_name, type_name)
    if pieces is None:
        return _filled(title, bank_name=bank_name, provider_name=bank_name, type=type_name, last4=last4)
    return last4.join(pieces)


@lru_cache(maxsize=4096)
def _around_last4(title: str, bank_name: str, type_name: str) -> tuple[str, ...] | None:
    """The pieces between which `{last4}` stands; None where the catalog wants it in a format of its own."""
    pieces = [""]
    for literal, field, spec, conversion in Formatter().parse(title):
        pieces[-1] += literal
        if field == "last4" and not spec and conversion is None:
            pieces.append("")
        elif field == "last4" or "last4" in (spec or ""):
            return None
        elif field is not None:
            part = f"{{{field}{'' if conversion is None else '!' + conversion}:{spec}}}"
            pieces[-1] += _filled(part, bank_name=bank_name, provider_name=bank_name, type=type_name)
    return tuple(pieces)


def _filled(title: str, **parts: str) -> str:
    return title.format(**(_WITHOUT | parts))


@lru_cache(maxsize=4096)
def icon(template: str, of: str = "") -> str:
    """`of`: the bank, the provider or the type of account that it is the icon of."""
    return template.format(provider=of.lower())
