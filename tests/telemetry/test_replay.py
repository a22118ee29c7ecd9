"""A record of a consultation replays to the same methods, and holds no personal data."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.explanation.schema import Outcome
from cashier.domain.facts import Account, Agreement, Boost, Card, LastUsed, Member, Promotion, Quota
from cashier.domain.pay_method import Kind
from cashier.domain.ranking import Weights
from cashier.source_errors import Missing, MissingCause
from cashier.telemetry.pseudonyms import Pseudonyms
from cashier.telemetry.replay import CannotReplay, Replay, digest_of, packed, recorded, replayed, unpacked
from tests.domain.builders import World, account, agreement, card, channel, member, one_of_each, order, promotion, quota
from tests.domain.explanation.evidence import evidence_of
from tests.domain.world_strategies import silences, worlds

PSEUDONYMS = Pseudonyms(b"k" * 32)


def unzipped(facts: bytes) -> Any:
    return msgspec.json.decode(zlib.decompress(facts))


def zipped(facts: Any) -> bytes:
    return zlib.compress(msgspec.json.encode(facts))


def record_of(world: World, pseudonyms: Pseudonyms = PSEUDONYMS, **answers: Any) -> Any:
    """The facts as they are in a file."""
    world = world.but(order=structs.replace(world.order, product=world.request.product))
    digest = digest_of(world.catalog, world.weights)
    methods = () if answers else world.methods()
    facts = recorded(evidence_of(world, **answers), methods, digest, pseudonyms)
    return unzipped(packed(facts))


def replay_of(world: World, **answers: Any) -> Replay:
    return replayed(unpacked(zipped(record_of(world, **answers))), world.catalog, world.weights)


@given(worlds(), silences())
def test_a_replay_gives_the_methods_that_were_answered(world: World, silent: Any) -> None:
    world = world.but(silent=silent)
    replay = replay_of(world)
    assert replay.explanation.outcome is Outcome.ANSWERED
    assert replay.differences == ()
    assert replay.same_configuration
    methods = sorted((why for kind in replay.explanation.kinds for why in kind.methods), key=lambda why: why.rank)
    assert [(each.kind, each.availability, each.reason and each.reason.code) for each in world.methods()] == [
        (why.method_id.partition(":")[0], why.availability, why.code) for why in methods
    ]


NAMES = st.lists(st.text("abAB09-+*", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


@given(NAMES, st.sampled_from([0, 1, 2]))
def test_ties_by_id_are_broken_as_they_were(names: list[str], last: int) -> None:
    """Cards of one bank at one price are ranked by their ids."""
    used = member(last_used=(Kind.QUICK_PAY, names[last % len(names)]))
    world = World(
        member=used,
        cards=tuple(card("CMB", name) for name in names),
        channels=(channel(Kind.QUICK_PAY, "CMB"),),
        quotas=(quota(Kind.QUICK_PAY, daily=(100, 0), card_id=names[0]),),
    )
    assert replay_of(world).differences == ()


def secretive() -> World:
    """Every personal field has a text of its own."""
    return one_of_each(
        order=order(12_345, user_id="u_secret", merchant_id="m_secret", title="SECRET_TITLE", category="SECRET_GOODS"),
        merchant=structs.replace(World().merchant, merchant_id="m_secret", name="SECRET_SHOP"),
        member=structs.replace(member(last_used=(Kind.QUICK_PAY, "c_secret")), user_id="u_secret"),
        request=structs.replace(
            World().request, user_id="u_secret", merchant_id="m_secret", chosen_promotions=("for_u_secret", "p_2")
        ),
        cards=(card("CMB", "c_secret", last4="9876", bank_name="SECRET_BANK", bank_names={"en": "SECRET_BANK"}),),
        agreements=(agreement(agreement_id="a_secret", merchant_id="m_secret"),),
        accounts=(account(50_000, "b_secret"),),
        quotas=(quota(Kind.QUICK_PAY, daily=(10**6, 0), card_id="c_secret"),),
        promotions=(promotion("for_u_secret", 5), promotion("p_2", 3)),
    )


def test_a_record_names_nobody() -> None:
    text = msgspec.json.encode(record_of(secretive())).decode()
    assert not re.findall(r"secret", text, re.IGNORECASE)
    assert "9876" not in text
    assert "The promotion" not in text
    assert replay_of(secretive()).differences == ()


# Of the sources that know the payer. A name of a campaign or group stays: see `_promotion`.
OF_THE_PAYER: dict[str, Any] = {
    "member": Member,
    "cards": tuple[Card, ...],
    "agreements": tuple[Agreement, ...],
    "accounts": tuple[Account, ...],
    "quotas": tuple[Quota, ...],
    "promotions": tuple[Promotion, ...],
    "boosts": tuple[Boost, ...],
}
CAMPAIGNS = {"promotion_id", "group"}


def full() -> World:
    """Every field of a payer's facts that can hold a text does."""
    return one_of_each(
        member=member((Kind.QUICK_PAY, 3), last_used=(Kind.WALLET, "ALIPAY")),
        cards=(card("CMB", bank_names={"en": "CMB"}),),
        quotas=(quota(Kind.QUICK_PAY, daily=(10**6, 0), card_id="c_CMB", bank="CMB", channel_id="QUICK_PAY:CMB"),),
        promotions=(promotion("p_1", 5, kinds=(Kind.QUICK_PAY,), banks=frozenset(("CMB",))),),
        boosts=(Boost(Kind.WALLET, 10, "label"),),
    )


def texts_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all texts in JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from texts_of(part, (*path, key))
    if isinstance(value, str) and CAMPAIGNS.isdisjoint(path):
        yield path


def changed(value: Any, path: tuple[Any, ...], text: str) -> Any:
    if not path:
        return text
    key, *rest = path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    parts = {name: changed(part, tuple(rest), text) if name == key else part for name, part in items}
    return parts if isinstance(value, dict) else list(parts.values())


@pytest.mark.parametrize("name", OF_THE_PAYER)
@pytest.mark.parametrize("text", ["王小明", "4111111111111111", "payer@example.com", "No. 7, Main Street"])
def test_no_text_of_a_payers_facts_gets_into_a_record_that_no_rule_knows(name: str, text: str) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(getattr(full(), name)))
    tried = 0
    for path in texts_of(plain):
        try:
            fact: Any = msgspec.convert(changed(plain, path, text), OF_THE_PAYER[name])
        except msgspec.ValidationError:
            continue  # the contract permits no such text
        world = full().but(**{name: fact})
        assert text not in msgspec.json.encode(record_of(world)).decode(), path
        assert replay_of(world).differences == (), path
        tried += 1
    assert tried


@pytest.mark.parametrize("bank", ["招商银行", "1234567890", "Bank of the payer's village"])
def test_a_code_of_the_channel_list_stays_and_decides_as_it_did(bank: str) -> None:
    """That list is the same for all payers."""
    world = full().but(
        channels=(channel(Kind.QUICK_PAY, bank, "7000000001", brands=frozenset(("银联",))),),
        cards=(card(bank, "c_1", brand="银联"), card("Other village", "c_2", brand="银联")),
        agreements=(agreement("7000000001"),),
        quotas=(
            quota(Kind.QUICK_PAY, daily=(10_000, 10_000), bank="Other village"),
            quota(Kind.QUICK_PAY, daily=(10**6, 0), bank=bank, channel_id="7000000001"),
        ),
        promotions=(promotion("p_1", 5, banks=frozenset((bank,))),),
    )
    text = msgspec.json.encode(record_of(world)["answers"]).decode()
    assert "Other village" not in text
    assert text.count(f'"{bank}"') == 5
    assert replay_of(world).differences == ()


def test_an_id_has_one_pseudonym_in_all_records_of_a_run_and_another_in_the_next() -> None:
    first, second = record_of(secretive()), record_of(secretive().but(promotions=()))
    other_run = record_of(secretive(), Pseudonyms(b"l" * 32))
    for field in ("user_id", "merchant_id"):
        assert first["request"][field] == second["request"][field] != other_run["request"][field]
    one_card_more = secretive().but(cards=(card("ICBC", "a_card"), *secretive().cards))
    found = [each["card_id"] for each in record_of(one_card_more)["answers"]["card"]["cards"]]
    [alone] = [each["card_id"] for each in first["answers"]["card"]["cards"]]
    assert alone.partition("_")[2] in {each.partition("_")[2] for each in found}


def test_a_wallet_that_was_used_last_is_still_the_same_wallet() -> None:
    world = one_of_each(member=structs.replace(member(), last_used=LastUsed(Kind.WALLET, "ALIPAY")))
    assert replay_of(world).differences == ()


def test_another_configuration_is_noticed_and_what_it_changes_is_named() -> None:
    world = one_of_each(member=member(last_used=(Kind.QUICK_PAY, "c_CMB")))
    facts = unpacked(zipped(record_of(world)))
    replay = replayed(facts, world.catalog, Weights(last_used=0, last_kind=0, cost=0, failure=9_000))
    assert not replay.same_configuration
    assert replay.differences
    assert all("was AVAILABLE" in difference for difference in replay.differences)


def test_a_silent_required_source_replays_too() -> None:
    replay = replay_of(World(), merchant=Missing("merchant", MissingCause.TIMEOUT))
    assert replay.explanation.outcome is Outcome.REQUIRED_SOURCE_UNAVAILABLE
    assert "missing (TIMEOUT)" in repr(replay.explanation.order_checks)
    assert replay_of(World(), order=None).explanation.outcome is Outcome.ORDER_UNKNOWN


BROKEN = {
    "absent": None,
    "not compressed": b"{}",
    "cut": zlib.compress(b"{}")[:5],
    "not JSON": zlib.compress(b"x"),
    "no facts": zlib.compress(b"{}"),
    "not whole": zlib.compress(b'{"version": 1}'),
    "endless": zlib.compress(b" " * (64 << 20)),
    "too deep": zlib.compress(b'{"version": 1, "x": ' + b'{"a": ' * 50_000),
    "no UTF-8": zlib.compress(b'{"version": 1, "request": {"user_id": "\xff"}}'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_facts_that_are_absent_or_broken_are_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(CannotReplay, match="the record"):
        unpacked(BROKEN[name])


def mutated(value: Any, odd: Any) -> Iterator[Any]:
    """Copies of a JSON value: each without one of its parts, and each with `odd` in its place."""
    parts = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for name, part in parts:
        for replaced in (odd, *mutated(part, odd)):
            yield (
                {**value, name: replaced}
                if isinstance(value, dict)
                else [replaced if place == name else each for place, each in enumerate(value)]
            )
        yield (
            {key: each for key, each in parts if key != name}
            if isinstance(value, dict)
            else [each for place, each in parts if place != name]
        )


ODD: list[Any] = [
    None,
    -1,
    2**63,
    10**30,
    "",
    "\x1b[2J",
    "2026-01-01T00:00:00",
    "9999-12-31T23:59:59Z",
    [],
    [{}],
    {},
    1.5,
]


@pytest.mark.parametrize("every", [len(ODD), pytest.param(4, marks=pytest.mark.proof)])
@pytest.mark.parametrize("odd", ODD)
def test_facts_with_any_part_changed_replay_or_are_refused(odd: Any, every: int) -> None:
    """A file may come from anybody: no change of it ends in another exception.

    By default each part is changed once, to one of the odd values in turn.
    """
    world = secretive()
    refused = 0
    for facts in islice(mutated(record_of(world), odd), ODD.index(odd) % every, None, every):
        try:
            msgspec.json.encode(replayed(unpacked(zipped(facts)), world.catalog, world.weights).explanation)
        except CannotReplay:
            refused += 1
    assert refused > 20


def test_facts_that_contradict_each_other_are_refused() -> None:
    facts = record_of(World())
    for changed in ({**facts, "now": "0001-01-01T00:00:00Z"}, {**facts, "answers": {}}):
        with pytest.raises(CannotReplay, match="contradict each other"):
            replayed(unpacked(zipped(changed)), World().catalog, World().weights)


def test_facts_of_another_version_are_refused() -> None:
    with pytest.raises(CannotReplay, match="version 2"):
        unpacked(zipped({"version": 2, "anything": "else"}))


def test_the_digest_changes_with_each_weight_and_term_and_with_nothing_else() -> None:
    world = World()
    digest = digest_of(world.catalog, world.weights)
    assert digest == digest_of(structs.replace(world.catalog, default_locale="zh-CN"), world.weights)
    assert digest != digest_of(world.catalog, Weights(boost=1))
