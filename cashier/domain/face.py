"""Face: how a way to pay presents itself, where that is the same for every payer.

Providers are few and come again with every consultation, so their faces are kept; nothing of a payer's is.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from cashier.domain.method import Instrument, Kind


class Face(Struct, frozen=True, gc=False):
    method_id: str
    title: str
    icon: str
    instrument: Instrument


@lru_cache(maxsize=4096)
def of_provider(kind: Kind, title: str, icon_template: str, provider: str, provider_name: str) -> Face:
    """`title` and `icon_template` as the catalog has them."""
    return Face(
        f"{kind}:{provider}",
        title.format(provider_name=provider_name, bank_name=provider_name, type="", last4="", account=""),
        icon(icon_template, provider),
        Instrument(provider),
    )


@lru_cache(maxsize=4096)
def icon(template: str, of: str = "") -> str:
    """`of`: the bank, the provider or the type of account that it is the icon of."""
    return template.format(provider=of.lower())
