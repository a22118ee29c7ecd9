"""Each rule, once as the first one that refuses, with the facts that an operator has to look at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cashier.domain.explanation.repairs import repaired
from cashier.domain.explanation.rules import ROWS, Rule
from cashier.domain.explanation.schema import Check, Fact, Result
from cashier.domain.explanation.walk import first_stop, quote_of, stops_of_method
from cashier.domain.facts import InstalmentTerm
from cashier.domain.money import Money
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.source_errors import MissingCause
from tests.domain.builders import (
    NOW,
    World,
    account,
    agreement,
    card,
    channel,
    member,
    merchant,
    one_of_each,
    order,
    promotion,
    quota,
    request,
    with_terms,
)
from tests.domain.explanation.evidence import explained_kind, explained_method

CMB = channel(Kind.QUICK_PAY, "CMB")
CARD = "QUICK_PAY:c_CMB"


def cards(**changes: Any) -> World:
    return World(cards=(card("CMB"),), channels=(CMB,)).but(**changes)


def carried_by(**changes: Any) -> World:
    return cards(channels=(channel(Kind.QUICK_PAY, "CMB", **changes),))


TILL = World(request=request(product=Product.SCAN, terminal=Terminal.POS), cards=(card("CMB"),), channels=(CMB,))
BALANCE = World(accounts=(account(50_000),))
INSTALMENTS = World(
    order=order(2), channels=(channel(Kind.INSTALMENT, "FLEXI", terms=(InstalmentTerm("t_3", 3, 0, 0),)),)
)

# By rule: the world, the method, and a fact that the rule read, with its source.
MET: dict[Rule, tuple[World, str, str, str]] = {
    Rule.KIND_OFFERED: (
        cards(catalog=with_terms(Kind.QUICK_PAY, offered=False)), CARD, "methods.QUICK_PAY.offered", "configuration",
    ),
    Rule.MERCHANT_CONTRACT: (cards(merchant=merchant(kinds=frozenset())), CARD, "merchant kinds", "merchant"),
    Rule.NOT_AT_TILL: (TILL, CARD, "terminal", "request"),
    Rule.KIND_PRODUCT: (
        cards(catalog=with_terms(Kind.QUICK_PAY, products=frozenset({Product.SCAN}))), CARD, "product", "request",
    ),
    Rule.KIND_TERMINAL: (
        cards(catalog=with_terms(Kind.QUICK_PAY, terminals=frozenset({Terminal.PC}))),
        CARD, "methods.QUICK_PAY.terminals", "configuration",
    ),
    Rule.KIND_COUNTRY: (
        cards(catalog=with_terms(Kind.QUICK_PAY, countries=frozenset({"JP"}))), CARD, "order country", "order",
    ),
    Rule.KIND_CURRENCY: (
        cards(catalog=with_terms(Kind.QUICK_PAY, currencies=frozenset({"JPY"}))), CARD, "order currency", "order",
    ),
    Rule.KYC_LEVEL: (
        cards(member=member(kyc_level=0), catalog=with_terms(Kind.QUICK_PAY, kyc_level=1)),
        CARD, "member kyc_level", "member",
    ),
    Rule.TIME_LEFT: (
        cards(order=order(expires_at=NOW + timedelta(seconds=3)), catalog=with_terms(Kind.QUICK_PAY, needs_s=10)),
        CARD, "order expires_at", "order",
    ),
    Rule.INSTRUMENTS_KNOWN: (cards(silent={"card": MissingCause.TIMEOUT}), "QUICK_PAY", "answer of card", "card"),
    Rule.INSTRUMENT_HELD: (World(channels=(CMB,)), "QUICK_PAY", "cards held", "card"),
    Rule.CARD_STATUS: (cards(cards=(card("CMB", status="FROZEN"),)), CARD, "card c_CMB status", "card"),
    Rule.CARD_EXPIRY: (cards(cards=(card("CMB", expiry="2026-04"),)), CARD, "card c_CMB expiry", "card"),
    Rule.AGREEMENT_STATUS: (
        one_of_each(agreements=(agreement(status="TERMINATED"),)), "AGREEMENT:a_1", "agreement a_1 status", "card",
    ),
    Rule.AGREEMENT_CURRENCY: (
        one_of_each(agreements=(agreement(single_max=Money("JPY", 5)),)),
        "AGREEMENT:a_1", "agreement a_1 single_max", "card",
    ),
    Rule.ACCOUNT_STATUS: (
        World(accounts=(account(50_000, status="FROZEN"),)), "BALANCE:b_1", "account b_1 status", "balance",
    ),
    Rule.ACCOUNT_CURRENCY: (
        World(accounts=(account(Money("JPY", 5)),)), "BALANCE:b_1", "account b_1 currency", "balance",
    ),
    Rule.CHANNELS_KNOWN: (cards(silent={"channel": MissingCause.OVERLOADED}), CARD, "answer of channel", "channel"),
    Rule.CHANNEL_EXISTS: (cards(channels=()), CARD, "card c_CMB bank, brand and type", "card"),
    Rule.CHANNEL_PRODUCT: (
        carried_by(products=frozenset({"SCAN"})), CARD, "channel QUICK_PAY:CMB products", "channel",
    ),
    Rule.CHANNEL_TERMINAL: (
        carried_by(terminals=frozenset({"PC"})), CARD, "channel QUICK_PAY:CMB terminals", "channel",
    ),
    Rule.CHANNEL_CURRENCY: (
        carried_by(currencies=frozenset({"JPY"})), CARD, "channel QUICK_PAY:CMB currencies", "channel",
    ),
    Rule.CHANNEL_OPEN: (carried_by(status="MAINTENANCE"), CARD, "channel QUICK_PAY:CMB status", "channel"),
    Rule.AMOUNT_STEP: (carried_by(step=7), CARD, "channel QUICK_PAY:CMB step", "channel"),
    Rule.AMOUNT_MINIMUM: (carried_by(least=10_001), CARD, "channel QUICK_PAY:CMB min", "channel"),
    Rule.SINGLE_LIMIT: (carried_by(most=9_999), CARD, "single limit, what remains", "channel"),
    Rule.DAILY_LIMIT: (
        cards(quotas=(quota(Kind.QUICK_PAY, daily=(10_000, 1)),)), CARD, "daily limit, what remains", "quota",
    ),
    Rule.MONTHLY_LIMIT: (
        cards(quotas=(quota(Kind.QUICK_PAY, monthly=(10_000, 1)),)), CARD, "monthly limit, what remains", "quota",
    ),
    Rule.BALANCE_SUFFICIENT: (World(accounts=(account(5),)), "BALANCE:b_1", "account b_1 available", "balance"),
    Rule.QUOTAS_KNOWN: (cards(silent={"quota": MissingCause.GARBLED}), CARD, "answer of quota", "quota"),
    Rule.QUOTAS_CLEAR: (cards(quotas=(quota(Kind.QUICK_PAY),)), CARD, "quota that is not understood", "quota"),
    Rule.INSTALMENT_SIZE: (INSTALMENTS, "INSTALMENT:FLEXI", "term t_3 count", "channel"),
}  # fmt: skip


def test_every_rule_about_a_listed_method_is_met_here() -> None:
    assert set(MET) == set(Rule) - {Rule.SOMETHING_TO_PAY}


@pytest.mark.parametrize("rule", MET)
def test_the_first_refusing_rule_is_named_with_its_facts_and_their_source(rule: Rule) -> None:
    world, method_id, fact, source = MET[rule]
    why = explained_method(world, method_id)
    assert why.refused_by == rule
    stop = first_stop(why.checks)
    assert stop is not None
    assert (fact, source) in [(each.name, each.source) for each in stop.facts]
    assert ROWS[rule].demand in stop.sentence
    assert fact in stop.sentence
    assert why.sentence == stop.sentence


def results(checks: tuple[Check, ...]) -> dict[str, Result]:
    return {check.rule: check.result for check in checks}


def test_the_rules_behind_the_first_refusal_are_judged_without_it() -> None:
    world = cards(
        merchant=merchant(kinds=frozenset()),
        cards=(card("CMB", status="FROZEN", expiry="2020-01"),),
        quotas=(quota(Kind.QUICK_PAY, daily=(1, 0), single=1),),
    )
    found = results(explained_method(world, CARD).checks)
    refused = [rule for rule, result in found.items() if result is Result.REFUSED]
    assert refused == ["MERCHANT_CONTRACT", "CARD_STATUS", "CARD_EXPIRY", "SINGLE_LIMIT", "DAILY_LIMIT"]
    assert found["MONTHLY_LIMIT"] is Result.PASSED


def test_nothing_is_said_of_rules_behind_an_absence() -> None:
    found = results(explained_method(cards(channels=()), CARD).checks)
    assert found["CARD_STATUS"] is Result.PASSED
    assert found["CHANNEL_EXISTS"] is Result.REFUSED
    assert found["CHANNEL_OPEN"] is found["DAILY_LIMIT"] is Result.NOT_REACHED


def test_a_fact_of_a_source_has_the_status_and_age_of_its_answer() -> None:
    world, method_id, _, _ = MET[Rule.KYC_LEVEL]
    stop = first_stop(explained_method(world, method_id).checks)
    assert stop is not None
    assert stop.facts == (
        Fact("member kyc_level", 0, "member", "CACHED", 40),
        Fact("methods.QUICK_PAY.kyc_level", 1, "configuration"),
    )
    assert "member kyc_level is 0 (member, CACHED, 40 ms old)" in stop.sentence


def test_a_kind_without_methods_names_what_is_missing() -> None:
    world = cards()
    assert {kind: left.rule for kind in Kind if (left := explained_kind(world, kind).left_out) is not None} == {
        **dict.fromkeys(set(Kind) - {Kind.QUICK_PAY}, Rule.CHANNEL_EXISTS),
        Kind.AGREEMENT: Rule.INSTRUMENT_HELD,
        Kind.BALANCE: Rule.INSTRUMENT_HELD,
        Kind.FREE: Rule.SOMETHING_TO_PAY,
    }
    wallet = explained_kind(world, Kind.WALLET).left_out
    assert wallet is not None
    assert "channels of WALLET in CNY/CN is none (channel, CACHED, 40 ms old)" in wallet.sentence


def test_nothing_to_pay_leaves_every_other_kind_out() -> None:
    world = cards(promotions=(promotion("p_1", 10_000),))
    for kind in set(Kind) - {Kind.FREE}:
        left = explained_kind(world, kind).left_out
        assert left is not None
        assert left.rule == Rule.SOMETHING_TO_PAY
    assert explained_kind(world, Kind.FREE).left_out is None


def test_each_channel_says_why_it_fell_out() -> None:
    channels = (
        channel(Kind.QUICK_PAY, "CMB", "closed", status="CLOSED"),
        channel(Kind.QUICK_PAY, "CMB", "dear", fee_bps=100),
        channel(Kind.QUICK_PAY, "CMB", "good"),
        channel(Kind.QUICK_PAY, "CMB", "visa only", brands=frozenset({"VISA"})),
        channel(Kind.QUICK_PAY, "ICBC", "of another bank"),
    )
    found = {each.channel_id: each for each in explained_method(cards(channels=channels), CARD).channels}
    assert {name: (each.chosen, each.refused_by) for name, each in found.items()} == {
        "closed": (False, Rule.CHANNEL_OPEN),
        "dear": (False, None),
        "good": (True, None),
        "visa only": (False, Rule.CHANNEL_EXISTS),
    }
    assert found["dear"].payable == Money("CNY", 10_100)
    assert found["good"].payable == Money("CNY", 10_000)


def test_each_limit_in_scope_is_shown_and_the_tightest_marked() -> None:
    quotas = (
        quota(Kind.QUICK_PAY, single=40_000, daily=(50_000, 20_000)),
        quota(Kind.QUICK_PAY, bank="CMB", daily=(25_000, 0)),
        quota(Kind.QUICK_PAY, bank="ICBC", daily=(1, 0)),
        quota(Kind.QUICK_PAY, card_id="c_other", daily=(1, 0)),
    )
    limits = explained_method(cards(quotas=quotas), CARD).limits
    assert [(each.period, each.source, each.remaining.value, each.tightest, each.scope) for each in limits] == [
        ("SINGLE", "channel QUICK_PAY:CMB", 5_000_000, False, None),
        ("SINGLE", "quota", 40_000, True, {"kind": "QUICK_PAY"}),
        ("DAILY", "quota", 30_000, False, {"kind": "QUICK_PAY"}),
        ("DAILY", "quota", 25_000, True, {"kind": "QUICK_PAY", "bank": "CMB"}),
    ]


def test_a_split_payment_explains_each_card_beside_the_balance() -> None:
    world = World(
        accounts=(account(4_000),),
        cards=(card("CMB"), card("ICBC")),
        channels=(CMB, channel(Kind.QUICK_PAY, "ICBC", status="CLOSED")),
    )
    why = explained_method(world, "BALANCE:b_1+QUICK_PAY")
    assert why.refused_by is None
    assert {each.option_id: each.refused_by for each in why.options} == {"c_CMB": None, "c_ICBC": Rule.CHANNEL_OPEN}
    assert {each.channel_id: each.chosen for each in why.channels} == {"QUICK_PAY:CMB": True, "QUICK_PAY:ICBC": False}


# What no repair can remove: another place of sale, and what would have to be invented.
ABSENCES = {
    Rule.NOT_AT_TILL,
    Rule.INSTRUMENTS_KNOWN,
    Rule.INSTRUMENT_HELD,
    Rule.ACCOUNT_CURRENCY,
    Rule.CHANNELS_KNOWN,
    Rule.CHANNEL_EXISTS,
    Rule.INSTALMENT_SIZE,
}


@pytest.mark.parametrize("rule", MET)
def test_each_rule_but_an_absence_passes_once_its_fact_is_repaired(rule: Rule) -> None:
    world, method_id, _, _ = MET[rule]
    kind = Kind(method_id.partition(":")[0])
    better = repaired(world.case(), rule, kind, method_id)
    assert (better is None) is (rule in ABSENCES)
    if better is not None:
        quote = quote_of(better, kind, method_id)
        assert quote is not None
        assert rule not in [stop.rule for stop in stops_of_method(better, kind, method_id, quote)]
