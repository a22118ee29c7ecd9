"""Words that must agree: each row of the contract's table, shown where they agree and differ."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
from msgspec import structs

from cashier.contract.document import document
from cashier.domain.facts import LastUsed
from cashier.domain.pay_method import Availability, Kind
from tests.domain.builders import World, one_of_each, promotion, quota

RULES = resources.files("cashier.contract").joinpath("rules.md").read_text("utf-8")
SECTION = RULES.partition("## Words that must agree\n")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| `([\w.\[\]]+)` \| (.+?) \| (.+?) \|$", SECTION, re.MULTILINE)


def world_with(kind: Kind, **changes: Any) -> World:
    """The world with changes to the channel of a kind."""
    world = one_of_each()
    return world.but(
        channels=tuple(structs.replace(each, **changes) if each.kind == kind else each for each in world.channels)
    )


def usable(world: World, kind: Kind) -> bool:
    return any(each.kind is kind and each.availability is Availability.AVAILABLE for each in world.methods())


def limited(**scope: Any) -> bool:
    return not usable(one_of_each(quotas=(quota(Kind.QUICK_PAY, single=1, **scope),)), Kind.QUICK_PAY)


def discounted(bank: str) -> bool:
    promotions = (promotion("p_1", 100, banks=frozenset({bank})),)
    [method] = [each for each in one_of_each(promotions=promotions).methods() if each.kind is Kind.QUICK_PAY]
    assert method.amount is not None
    return bool(method.amount.discounts)


def habitual(instrument_id: str) -> bool:
    world = one_of_each()
    used = structs.replace(world.member, last_used=LastUsed("QUICK_PAY", instrument_id))
    return any("LAST_USED" in each.rank_reasons for each in world.but(member=used).methods())


CARD = one_of_each().cards[0]
AGREEMENT = one_of_each().agreements[0]
# By row: whether it has its effect with this word.
EFFECTS: dict[str, tuple[Callable[[str], bool], str]] = {
    "cards[].bank": (
        lambda bank: usable(one_of_each(cards=(structs.replace(CARD, bank=bank),)), Kind.QUICK_PAY),
        "CMB",
    ),
    "cards[].brand": (
        lambda brand: usable(world_with(Kind.QUICK_PAY, brands=frozenset({brand})), Kind.QUICK_PAY),
        CARD.brand,
    ),
    "cards[].type": (
        lambda kind: usable(world_with(Kind.QUICK_PAY, card_types=frozenset({kind})), Kind.QUICK_PAY),
        CARD.type,
    ),
    "agreements[].channel_id": (
        lambda channel_id: usable(
            one_of_each(agreements=(structs.replace(AGREEMENT, channel_id=channel_id),)), Kind.AGREEMENT
        ),
        AGREEMENT.channel_id,
    ),
    "agreements[].merchant_id": (
        lambda merchant_id: usable(
            one_of_each(agreements=(structs.replace(AGREEMENT, merchant_id=merchant_id),)), Kind.AGREEMENT
        ),
        AGREEMENT.merchant_id,
    ),
    "quotas[].scope.bank": (lambda bank: limited(bank=bank), "CMB"),
    "quotas[].scope.channel_id": (lambda channel_id: limited(channel_id=channel_id), "QUICK_PAY:CMB"),
    "quotas[].scope.card_id": (lambda card_id: limited(card_id=card_id), CARD.card_id),
    "promotions[].banks": (discounted, "CMB"),
    "last_used.instrument_id": (habitual, CARD.card_id),
}


def test_every_row_is_shown() -> None:
    assert {value for value, _, _ in ROWS} == EFFECTS.keys() | {"failure.code"}


@pytest.mark.parametrize("row", EFFECTS)
def test_a_word_has_its_effect_only_where_it_agrees(row: str) -> None:
    effect, word = EFFECTS[row]
    assert effect(word)
    assert not effect("ANOTHER")


def test_every_word_of_the_table_is_a_field_of_the_contract() -> None:
    schemas = document()["components"]["schemas"]
    fields = {field for schema in schemas.values() for field in schema.get("properties", ())}
    for value, compared, _ in ROWS:
        for path in (value, *re.findall(r"`([\w.\[\]]+)`", compared)):
            if path.islower() and path not in ("[blame]", "routing.toml"):
                assert set(path.replace("[]", "").split(".")) <= fields, path
