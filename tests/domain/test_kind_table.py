"""The table of kinds: an incomplete one fails at import, with a message that names the gap."""

from __future__ import annotations

import importlib.util
from enum import StrEnum
from types import ModuleType
from typing import Any, cast

import pytest
from msgspec import structs

from cashier.domain import assembly, channel_candidates, kinds, pay_method
from cashier.domain.kinds import KINDS, InstrumentSource, KindRow, Listing, complete
from cashier.domain.pay_method import Kind
from tests.domain.builders import CATALOG

LargerKind: Any = cast(Any, StrEnum)("LargerKind", [*((kind.name, kind.value) for kind in Kind), ("TERM", "TERM")])
FIELDS = structs.fields(KindRow)


def import_anew(module: ModuleType) -> None:
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    module.__spec__.loader.exec_module(importlib.util.module_from_spec(module.__spec__))


def test_every_kind_has_a_row() -> None:
    assert set(KINDS) == set(Kind)


def test_a_kind_without_a_row_fails_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    import_anew(kinds)
    monkeypatch.setattr(pay_method, "Kind", LargerKind)
    with pytest.raises(LookupError, match=r"^domain\.kinds\.KINDS has no entry for TERM$"):
        import_anew(kinds)


@pytest.mark.parametrize("module", [assembly, channel_candidates], ids=lambda module: module.__name__)
def test_a_listing_without_a_function_fails_at_import(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class LargerListing(StrEnum):
        PER_TERM = "PER_TERM"

    import_anew(module)
    members = [*Listing, *LargerListing]
    monkeypatch.setattr(kinds, "complete", lambda name, table, _: complete(name, table, members))
    name = module.__name__.removeprefix("cashier.")
    with pytest.raises(LookupError, match=f"^{name} has no entry for PER_TERM$"):
        import_anew(module)


@pytest.mark.parametrize("name", [field.name for field in FIELDS])
def test_a_row_without_one_of_its_fields_fails_and_names_it(name: str) -> None:
    row: dict[str, Any] = structs.asdict(KINDS[Kind.CONSUMER_QR])
    assert KindRow(**row) == KINDS[Kind.CONSUMER_QR]
    del row[name]
    with pytest.raises(TypeError, match=f"'{name}'"):
        KindRow(**row)


@pytest.mark.parametrize("kind", Kind)
def test_a_row_agrees_with_the_packaged_terms(kind: Kind) -> None:
    """`required_fields` of methods.toml names what the row's functions need from the payer."""
    row, required = KINDS[kind], CATALOG.methods[kind].required_fields
    assert ("option_id" in required) == (row.listing is Listing.OPTION_PER_PROVIDER)
    assert ("card_token" in required) == (row.instrument_source is InstrumentSource.CARD_TOKEN)
    assert ("auth_code" in required) == (row.instrument_source is InstrumentSource.AUTH_CODE)
