"""The walk: all rules about one method, by the decision itself.

It asks the decision, notes the rule that refused, removes its cause and asks again, until nothing
refuses or the cause cannot be removed.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from cashier.domain.assembly import assemble_kind
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.explanation.evidence import Evidence
from cashier.domain.explanation.facts import facts_of
from cashier.domain.explanation.repairs import repaired
from cashier.domain.explanation.rules import ROWS, Rule, rule_of_kind, rule_of_method, rules_of_kind, rules_of_method
from cashier.domain.explanation.schema import Check, Fact, Result
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.pay_method import Kind
from cashier.domain.quote import Quote
from cashier.domain.refusal import Refusal


class Stop(Struct, frozen=True):
    """A rule that did not pass: its refusal, and the case and the quote in which it was met."""

    rule: Rule
    refusal: Refusal
    case: ConsultationCase
    quote: Quote


def quote_of(case: ConsultationCase, kind: Kind, method_id: str) -> Quote | None:
    """The decision about one method; None if the case does not list it."""
    return next((offer.quote for offer in assemble_kind(case, kind) if offer.method_id == method_id), None)


def stops_of_method(case: ConsultationCase, kind: Kind, method_id: str, quote: Quote | None) -> Iterator[Stop]:
    """The rules that do not pass, the first one first. `quote`: the decision in this case."""
    met: set[Rule] = set()
    current: ConsultationCase | None = case
    while current is not None and quote is not None and quote.refusal is not None:
        rule = rule_of_method(current, kind, method_id, quote, quote.refusal)
        if rule in met:  # the repair did not help
            return
        met.add(rule)
        yield Stop(rule, quote.refusal, current, quote)
        current = repaired(current, rule, kind, method_id)
        quote = None if current is None else quote_of(current, kind, method_id)


def stops_of_kind(case: ConsultationCase, kind: Kind) -> Iterator[Stop]:
    """The same for the rules about the kind as a whole."""
    met: set[Rule] = set()
    current: ConsultationCase | None = case
    while current is not None and (refusal := KindAssessment(current, kind).refusal) is not None:
        rule = rule_of_kind(current, kind, refusal)
        if rule in met:
            return
        met.add(rule)
        yield Stop(rule, refusal, current, Quote(refusal))
        current = repaired(current, rule, kind, kind)


def checks_of_method(
    evidence: Evidence, case: ConsultationCase, kind: Kind, method_id: str, quote: Quote | None
) -> tuple[Check, ...]:
    """Every rule about the method, in order."""
    stops = list(stops_of_method(case, kind, method_id, quote))
    unsettled = bool(stops) and repaired(stops[-1].case, stops[-1].rule, kind, method_id) is None
    return _checks(evidence, rules_of_method(kind, method_id), stops, kind, method_id, unsettled=unsettled)


def checks_of_kind(evidence: Evidence, case: ConsultationCase, kind: Kind) -> tuple[Check, ...]:
    """Every rule about the kind as a whole, in order."""
    stops = list(stops_of_kind(case, kind))
    unsettled = bool(stops) and repaired(stops[-1].case, stops[-1].rule, kind, kind) is None
    rules = tuple(rule for rule in rules_of_kind(kind) if rule is not Rule.SOMETHING_TO_PAY)
    return _checks(evidence, rules, stops, kind, kind, unsettled=unsettled)


def _checks(
    evidence: Evidence, rules: tuple[Rule, ...], stops: list[Stop], kind: Kind, method_id: str, *, unsettled: bool
) -> tuple[Check, ...]:
    by_rule, order = {stop.rule: stop for stop in stops}, list(Rule)
    last = order.index(stops[-1].rule) if unsettled else len(order)
    checks = []
    for rule in rules:
        if rule in by_rule:
            stop = by_rule[rule]
            facts = facts_of(evidence, rule, stop.case, kind, method_id, stop.quote)
            checks.append(check_of(rule, ROWS[rule].demand, stop.refusal, facts))
        else:
            checks.append(Check(rule, Result.NOT_REACHED if order.index(rule) > last else Result.PASSED))
    return tuple(checks)


def check_of(rule: str, demand: str, refusal: Refusal, facts: tuple[Fact, ...]) -> Check:
    result = Result.UNDETERMINED if refusal.undetermined else Result.REFUSED
    return Check(rule, result, refusal.code, refusal.source, facts, sentence_of(f"{refusal.code}: {demand}", facts))


def sentence_of(claim: str, facts: tuple[Fact, ...]) -> str:
    """`KYC_REQUIRED: the payer's KYC level must …; member kyc_level is 1 (member, CACHED).`"""
    return "; ".join((claim, *map(_fact_text, facts))) + "."


def _fact_text(fact: Fact) -> str:
    value = fact.value
    text = "none" if value is None or value == [] else ", ".join(map(str, value)) if isinstance(value, list) else value
    origin = fact.source if fact.status is None else f"{fact.source}, {fact.status}"
    age = f", {fact.age_ms} ms old" if fact.age_ms else ""
    return f"{fact.name} is {text} ({origin}{age})"


def first_stop(checks: tuple[Check, ...]) -> Check | None:
    """The first rule that did not pass."""
    return next((check for check in checks if check.result not in (Result.PASSED, Result.NOT_REACHED)), None)
