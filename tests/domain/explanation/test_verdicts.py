"""An explanation says of each method what the consultation says, for any world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given

from cashier.domain.assembly import assemble
from cashier.domain.explanation.explain import MOST_ASSEMBLED, explain, explain_in_steps
from cashier.domain.explanation.repairs import repaired
from cashier.domain.explanation.rules import Rule, rules_of_method
from cashier.domain.explanation.schema import Check, MethodExplanation, Outcome, Result
from cashier.domain.explanation.walk import quote_of, stops_of_method
from cashier.domain.pay_method import Availability, Kind, PayMethod
from cashier.domain.ranking import rank_offers
from tests.domain.builders import World, account, card, one_of_each
from tests.domain.builders import channel as a_channel
from tests.domain.explanation.evidence import evidence_of, explained, judgement_of
from tests.domain.world_strategies import silences, worlds

ORDER = list(Rule)
RESULTS = {Availability.UNAVAILABLE: Result.REFUSED, Availability.UNDETERMINED: Result.UNDETERMINED}


def pairs(world: World) -> Iterator[tuple[PayMethod, MethodExplanation]]:
    methods = {method.method_id: method for method in world.methods()}
    found = [each for kind in explained(world).kinds for each in kind.methods]
    assert {each.method_id for each in found} == set(methods)
    for each in found:
        yield methods[each.method_id], each


def stopped(checks: tuple[Check, ...]) -> list[Check]:
    return [check for check in checks if check.result in (Result.REFUSED, Result.UNDETERMINED)]


@given(worlds(), silences())
def test_each_method_has_the_verdict_price_and_rank_of_the_consultation(world: World, silent: Any) -> None:
    for method, why in pairs(world.but(silent=silent)):
        assert why.availability is method.availability
        assert why.code == (method.reason and method.reason.code)
        assert why.payable == (method.amount and method.amount.payable)
        assert (why.rank, why.preferred) == (method.rank, method.preferred)
        first = next(iter(stopped(why.checks)), None)
        assert (first and first.code, first and first.source) == (why.code, why.source)
        assert why.refused_by == (first and first.rule)
        if first is not None:
            assert first.result is RESULTS[method.availability]
            assert first.facts
            assert first.sentence


@given(worlds(), silences())
def test_each_option_has_the_verdict_of_its_rules(world: World, silent: Any) -> None:
    for method, why in pairs(world.but(silent=silent)):
        assert [each.option_id for each in why.options] == [option.option_id for option in method.options]
        for option, each in zip(method.options, why.options, strict=True):
            first = next(iter(stopped(each.checks)), None)
            assert (first and first.code) == (option.reason and option.reason.code)
            assert each.payable == (option.amount and option.amount.payable)


@given(worlds(), silences())
def test_rules_are_listed_in_the_order_of_the_decision(world: World, silent: Any) -> None:
    for _, why in pairs(world.but(silent=silent)):
        rules = [check.rule for check in why.checks]
        assert rules == sorted(rules, key=lambda rule: ORDER.index(Rule(rule)))
        case = world.but(silent=silent).case()
        kind = Kind(why.method_id.partition(":")[0])
        quote = quote_of(case, kind, why.method_id)
        met = [ORDER.index(stop.rule) for stop in stops_of_method(case, kind, why.method_id, quote)]
        assert met == sorted(met)
        assert {ORDER[index] for index in met} <= set(rules_of_method(kind, why.method_id))


@given(worlds(), silences())
def test_the_verdict_changes_when_the_fact_of_the_first_refusing_rule_is_repaired(world: World, silent: Any) -> None:
    world = world.but(silent=silent)
    case = world.case()
    for method, why in pairs(world):
        if why.refused_by is None:
            continue
        better = repaired(case, Rule(why.refused_by), method.kind, method.method_id)
        if better is None:
            continue
        methods = rank_offers(better, assemble(better), world.weights)
        after = next((each for each in methods if each.method_id == method.method_id), None)
        assert after is None or after.reason is None or after.reason != method.reason


@given(worlds(), silences())
def test_the_chosen_channel_alone_gives_the_verdict_of_the_method(world: World, silent: Any) -> None:
    for method, why in pairs(world.but(silent=silent)):
        for channel in why.channels:
            if channel.chosen and not method.legs:
                assert (channel.availability, channel.code) == (why.availability, why.code)


@given(worlds(), silences())
def test_the_parts_of_a_score_order_the_methods(world: World, silent: Any) -> None:
    for each in Availability:
        scores = [
            why.score or 0
            for method, why in sorted(pairs(world.but(silent=silent)), key=lambda pair: pair[0].rank)
            if method.availability is each
        ]
        assert scores == sorted(scores, reverse=True)


@given(worlds(), silences())
def test_every_kind_is_there_and_one_without_methods_says_why(world: World, silent: Any) -> None:
    why = explained(world.but(silent=silent))
    assert why.outcome is Outcome.ANSWERED
    assert {each.kind for each in why.kinds} == set(Kind)
    for each in why.kinds:
        assert bool(each.methods) is (each.left_out is None)
        assert each.left_out is None or (each.left_out.facts and each.left_out.sentence)


def test_an_absurd_number_of_instruments_and_channels_is_explained_in_bounded_work() -> None:
    banks = [f"B{number}" for number in range(64)]
    world = World(
        cards=tuple(card(bank, f"c_{number}_{bank}") for bank in banks for number in range(2)),
        accounts=tuple(account(5, f"b_{number}") for number in range(4)),
        channels=tuple(a_channel(Kind.QUICK_PAY, bank) for bank in banks),
    )
    evidence, judgement = evidence_of(world), judgement_of(world)
    steps = sum(1 for _ in explain_in_steps(evidence, judgement))
    assert steps <= MOST_ASSEMBLED / 8
    why = explain(evidence, judgement)
    assert not why.complete
    methods = {method.method_id: method for method in world.methods()}
    for each in [each for kind in why.kinds for each in kind.methods]:
        assert each.availability is methods[each.method_id].availability
        assert each.checks or each.sentence.startswith("Not explained")
    assert explained(one_of_each()).complete
