"""Explain one consultation: the whole of it, from its evidence and the configuration."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from msgspec import Struct, structs

from cashier.domain.assembly import assemble
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.explanation.evidence import Evidence, Judgement
from cashier.domain.explanation.facts import facts_of
from cashier.domain.explanation.limits import limits_of
from cashier.domain.explanation.order import order_checks
from cashier.domain.explanation.promotions import method_promotions, order_promotions
from cashier.domain.explanation.repairs import kinds_carried, with_channels, with_facts
from cashier.domain.explanation.routes import route_of
from cashier.domain.explanation.rules import ROWS, Rule, rules_of_method
from cashier.domain.explanation.schema import (
    ChannelExplanation,
    Check,
    Explanation,
    KindExplanation,
    LimitExplanation,
    MethodExplanation,
    OptionExplanation,
    Outcome,
    Result,
    RouteExplanation,
)
from cashier.domain.explanation.walk import (
    checks_of_kind,
    checks_of_method,
    first_stop,
    quote_of,
    sentence_of,
)
from cashier.domain.facts import Balances, Card, Cards, Channel, Facts
from cashier.domain.kinds import KINDS, Listing
from cashier.domain.money import Money
from cashier.domain.offer import Offer
from cashier.domain.order_checks import first_block
from cashier.domain.pay_method import Availability, Kind, Option, PayMethod
from cashier.domain.quote import Quote
from cashier.domain.ranking import ScorePart, rank_offers, score_parts
from cashier.domain.refusal import availability
from cashier.domain.split_payment import ID_SUFFIX
from cashier.source_errors import Missing, MissingCause

_REQUIRED = ("order", "merchant", "member")
# Cards, accounts and channels that are assembled in all. A usual order takes two thousand; an
# upstream may send hundreds of each, and every card is combined with every account.
MOST_ASSEMBLED = 20_000
_ASSEMBLED_AT_LEAST = 8
_NOT_EXPLAINED = "Not explained: there are too many instruments and channels."


def explain(evidence: Evidence, judgement: Judgement) -> Explanation:
    """The explanation. The verdicts are those of a consultation on the same evidence."""
    steps = explain_in_steps(evidence, judgement)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            explanation: Explanation = end.value
            return explanation


def explain_in_steps(evidence: Evidence, judgement: Judgement) -> Generator[None, None, Explanation]:
    """As `explain`, with pauses: all of it takes some ten milliseconds, at worst a second."""
    answers, request = evidence.answers, evidence.request
    order, merchant, member = (answers[name] for name in _REQUIRED)
    if order is None:
        return _without_methods(evidence, Outcome.ORDER_UNKNOWN, "The acquirer knows no such order.")
    if not isinstance(order, Missing):
        blocked = first_block(request, order, merchant, member, evidence.now)
        if blocked is not None:
            return _without_methods(evidence, Outcome.BLOCKED, f"The order cannot be paid: {blocked}.", blocked)
    silent = [name for name in _REQUIRED if isinstance(answers[name], Missing)]
    if silent:
        # Where one fails, the others are not waited for, and did not fail.
        failed = [name for name in silent if answers[name].cause is not MissingCause.SKIPPED] or silent
        sentence = f"No answer from {', '.join(failed)}, which every consultation requires."
        return _without_methods(evidence, Outcome.REQUIRED_SOURCE_UNAVAILABLE, sentence)
    case = ConsultationCase(request, Facts(**answers), judgement.catalog, evidence.now)
    offers = assemble(case)
    methods = rank_offers(case, offers, judgement.weights)
    explainer = _Explainer(evidence, judgement, case, offers, methods)
    kinds = []
    for kind in KINDS:
        kinds.append((yield from explainer.kind(kind)))
    return Explanation(
        outcome=Outcome.ANSWERED,
        request=request,
        consulted_at=evidence.now,
        blocked=None,
        degraded=bool(evidence.silent),
        sources=evidence.sources,
        order_checks=order_checks(evidence),
        promotions=order_promotions(case),
        kinds=tuple(kinds),
        complete=explainer.complete,
        sentence=_summary(methods, evidence.silent),
    )


def _without_methods(evidence: Evidence, outcome: Outcome, sentence: str, blocked: str | None = None) -> Explanation:
    known = outcome is not Outcome.ORDER_UNKNOWN and not isinstance(evidence.answers["order"], Missing)
    return Explanation(
        outcome=outcome,
        request=evidence.request,
        consulted_at=evidence.now,
        blocked=blocked,
        degraded=outcome is not Outcome.BLOCKED and bool(evidence.silent),
        sources=evidence.sources,
        order_checks=order_checks(evidence) if known else (),
        promotions=(),
        kinds=(),
        complete=True,
        sentence=sentence,
    )


def _summary(methods: Sequence[PayMethod], silent: Sequence[str]) -> str:
    counts = {each: sum(method.availability is each for method in methods) for each in Availability}
    listed = ", ".join(f"{count} {each.lower()}" for each, count in counts.items())
    missing = f" No answer from {', '.join(silent)}." if silent else ""
    first = methods[0].method_id if methods and methods[0].preferred else "none"
    return f"{len(methods)} methods: {listed}. Preferred: {first}.{missing}"


class _Part(Struct, frozen=True):
    """A method, or one option of it: the case that lists only this, and the decision there."""

    kind: Kind
    method_id: str
    case: ConsultationCase
    quote: Quote


class _Explainer:
    """Explains the kinds of one answered consultation."""

    def __init__(
        self,
        evidence: Evidence,
        judgement: Judgement,
        case: ConsultationCase,
        offers: Sequence[Offer],
        methods: Sequence[PayMethod],
    ) -> None:
        self._evidence = evidence
        self._judgement = judgement
        self._case = case
        self._offers = {offer.method_id: offer for offer in offers}
        self._methods = methods
        self._left = MOST_ASSEMBLED
        self._parts = score_parts(case, list(offers), judgement.weights) if judgement.internals else {}

    def kind(self, kind: Kind) -> Generator[None, None, KindExplanation]:
        methods = []
        for method in self._methods:
            if method.kind is kind:
                methods.append((yield from self._method(method)))
        return KindExplanation(
            kind=kind,
            checks=checks_of_kind(self._evidence, self._case, kind),
            left_out=None if methods else self._left_out(kind),
            methods=tuple(methods),
        )

    def _left_out(self, kind: Kind) -> Check:
        """Why the kind lists no method, whatever its own rules say."""
        listing, free = KINDS[kind].listing, any(method.kind is Kind.FREE for method in self._methods)
        if free or listing is Listing.NOTHING_TO_PAY:
            rule = Rule.SOMETHING_TO_PAY
        elif listing in (Listing.PER_AGREEMENT, Listing.PER_ACCOUNT):
            rule = Rule.INSTRUMENT_HELD
        else:
            rule = Rule.CHANNEL_EXISTS
        facts = facts_of(self._evidence, rule, self._case, kind, kind, Quote(None))
        return Check(rule, Result.REFUSED, None, None, facts, sentence_of(f"Not listed: {ROWS[rule].demand}", facts))

    @property
    def complete(self) -> bool:
        """Whether everything was explained."""
        return self._left >= 0

    def _method(self, method: PayMethod) -> Generator[None, None, MethodExplanation]:
        offer = self._offers[method.method_id]
        # The price and the verdict of a method are those of its best option.
        part = _Part(method.kind, method.method_id, self._with_method(method), offer.quote)
        checks = self._checks(part)
        channels = yield from self._channels(part)
        options = []
        for option in method.options:
            options.append((yield from self._option(method, part, option)))
        stop = first_stop(checks)
        refused_by = None if stop is None else stop.rule
        amounts, reason = method.amount, method.reason
        parts = self._parts.get(method.method_id)
        return MethodExplanation(
            method_id=method.method_id,
            availability=method.availability,
            code=None if reason is None else reason.code,
            source=None if reason is None else reason.source,
            payable=None if amounts is None else amounts.payable,
            fee=None if amounts is None else amounts.fee,
            rank=method.rank,
            preferred=method.preferred,
            rank_reasons=method.rank_reasons,
            refused_by=refused_by,
            checks=checks,
            channels=channels,
            options=tuple(options),
            limits=self._limits(part),
            promotions=method_promotions(self._case, part.kind, part.method_id, offer.quote),
            score=None if parts is None else sum(each.score for each in parts),
            parts=parts,
            route=self._route(method),
            sentence=self._sentence(method, stop, parts) if checks else _NOT_EXPLAINED,
        )

    def _option(self, method: PayMethod, part: _Part, option: Option) -> Generator[None, None, OptionExplanation]:
        case = self._with_option(part, option.option_id) if self._permits(part.case) else part.case
        quote = (quote_of(case, method.kind, method.method_id) if self.complete else None) or Quote(None)
        part = _Part(method.kind, method.method_id, case, quote)
        checks = self._checks(part)
        channels = yield from self._channels(part)
        stop = first_stop(checks)
        usable = option.availability is Availability.AVAILABLE
        return OptionExplanation(
            option_id=option.option_id,
            availability=option.availability,
            code=None if option.reason is None else option.reason.code,
            source=None if option.reason is None else option.reason.source,
            payable=None if option.amount is None else option.amount.payable,
            refused_by=None if stop is None else stop.rule,
            checks=checks,
            channels=channels,
            limits=self._limits(part),
            route=self._routed(method.method_id, option.option_id) if usable else None,
        )

    def _with_method(self, method: PayMethod) -> ConsultationCase:
        """The case with no other instruments and channels: it is assembled many times."""
        case = self._with_instrument(method)
        part = _Part(method.kind, method.method_id, case, Quote(None))
        gateway = case.facts.channel
        if isinstance(gateway, Missing):
            return case
        return with_channels(case, [each for each in gateway.by_id.values() if self._concerns(each, part)])

    def _with_instrument(self, method: PayMethod) -> ConsultationCase:
        listing, instrument_id = KINDS[method.kind].listing, method.method_id.partition(":")[2]
        cards, balances = self._case.facts.card, self._case.facts.balance
        if listing is Listing.PER_CARD and isinstance(cards, Cards):
            own = tuple(card for card in cards.cards if card.card_id == instrument_id)
            return with_facts(self._case, card=Cards(cards.user_id, own, ()))
        if listing is Listing.PER_AGREEMENT and isinstance(cards, Cards):
            signed = tuple(each for each in cards.agreements if each.agreement_id == instrument_id)
            return with_facts(self._case, card=Cards(cards.user_id, (), signed))
        if listing is Listing.PER_ACCOUNT and isinstance(balances, Balances):
            account_id = instrument_id.removesuffix(ID_SUFFIX)
            held = tuple(account for account in balances.accounts if account.account_id == account_id)
            return with_facts(self._case, balance=Balances(balances.user_id, held))
        return self._case

    def _with_option(self, part: _Part, option_id: str) -> ConsultationCase:
        """The case as if the method had this option only."""
        facts, listing = part.case.facts, KINDS[part.kind].listing
        if listing is Listing.PER_ACCOUNT:
            held = facts.card
            if isinstance(held, Missing):
                return part.case
            cards = tuple(card for card in held.cards if card.card_id == option_id)
            return with_facts(part.case, card=Cards(held.user_id, cards, held.agreements))
        gateway = facts.channel
        if isinstance(gateway, Missing):
            return part.case
        own = [channel for channel in gateway.by_id.values() if channel.kind == part.kind]
        if listing is Listing.TERM_PER_PROVIDER:
            return with_channels(part.case, [_with_term(channel, option_id) for channel in own])
        return with_channels(part.case, [channel for channel in own if channel.provider == option_id])

    def _permits(self, case: ConsultationCase) -> bool:
        """Whether this case may be assembled once more. False once the bound is met."""
        facts, rows = case.facts, _ASSEMBLED_AT_LEAST
        rows += 0 if isinstance(facts.card, Missing) else len(facts.card.cards) + len(facts.card.agreements)
        rows += 0 if isinstance(facts.balance, Missing) else len(facts.balance.accounts)
        rows += 0 if isinstance(facts.channel, Missing) else len(facts.channel.by_id)
        self._left -= rows if self._left >= 0 else 0
        return self._left >= 0

    def _checks(self, part: _Part) -> tuple[Check, ...]:
        """None once the bound is met."""
        if not self._permits(part.case):
            return ()
        return checks_of_method(self._evidence, part.case, part.kind, part.method_id, part.quote)

    def _channels(self, part: _Part) -> Generator[None, None, tuple[ChannelExplanation, ...]]:
        """Each channel that could carry the method, as if there were no other."""
        gateway = part.case.facts.channel
        if isinstance(gateway, Missing) or Rule.CHANNEL_EXISTS not in rules_of_method(part.kind, part.method_id):
            return ()
        found = []
        for channel in gateway.by_id.values():
            if self._concerns(channel, part):
                if not self._permits(part.case):
                    break
                found.append(self._channel(channel, part))
                yield
        return tuple(found)

    def _concerns(self, channel: Channel, part: _Part) -> bool:
        """Whether the channel is one of the method's kind, and of its bank or provider."""
        if channel.kind not in kinds_carried(part.kind, part.method_id):
            return False
        listing, instrument_id = KINDS[part.kind].listing, part.method_id.partition(":")[2]
        if listing is Listing.PER_AGREEMENT:
            held = part.case.facts.card
            agreements = () if isinstance(held, Missing) else held.agreements
            return any(
                each.agreement_id == instrument_id and each.channel_id == channel.channel_id for each in agreements
            )
        if listing in (Listing.PER_CARD, Listing.PER_ACCOUNT):
            return channel.provider in {card.bank for card in self._cards(part)}
        return listing not in (Listing.PER_PROVIDER, Listing.TERM_PER_PROVIDER) or channel.provider == instrument_id

    def _cards(self, part: _Part) -> Sequence[Card]:
        """The cards that the method charges, or could charge beside a balance."""
        held, card_id = part.case.facts.card, part.method_id.partition(":")[2]
        if isinstance(held, Missing):
            return ()
        return [card for card in held.cards if part.kind is Kind.BALANCE or card.card_id == card_id]

    def _channel(self, channel: Channel, part: _Part) -> ChannelExplanation:
        case = with_channels(part.case, (channel,))
        quote = quote_of(case, part.kind, part.method_id)
        stopped = tuple(
            check
            for check in checks_of_method(self._evidence, case, part.kind, part.method_id, quote)
            if check.result is not Result.PASSED
        )
        stop = first_stop(stopped)
        chosen = part.quote.channel is not None and part.quote.channel.channel_id == channel.channel_id
        refusal = None if quote is None else quote.refusal
        return ChannelExplanation(
            channel_id=channel.channel_id,
            provider=channel.provider,
            chosen=chosen,
            availability=Availability.UNAVAILABLE if quote is None else availability(refusal),
            refused_by=None if stop is None else stop.rule,
            code=None if refusal is None else refusal.code,
            payable=None if quote is None or quote.amounts is None else quote.amounts.payable,
            checks=stopped,
            sentence=_channel_sentence(part.quote, quote, stop, chosen=chosen),
        )

    def _limits(self, part: _Part) -> tuple[LimitExplanation, ...]:
        """Of a split payment the card's: the account passed its own for a larger amount."""
        if part.quote.amounts is None:
            return ()
        kind, card_id, instrument_id = part.kind, None, part.method_id.partition(":")[2]
        if part.method_id.endswith(ID_SUFFIX):
            kind, card_id = Kind.QUICK_PAY, next((leg.id for leg in part.quote.legs[1:]), None)
        elif KINDS[kind].listing is Listing.PER_CARD:
            card_id = instrument_id
        held = part.case.facts.card
        agreements = () if isinstance(held, Missing) or kind is not Kind.AGREEMENT else held.agreements
        ceiling: Money | None = next((a.single_max for a in agreements if a.agreement_id == instrument_id), None)
        return limits_of(part.case, kind, card_id, part.quote, ceiling)

    def _route(self, method: PayMethod) -> RouteExplanation | None:
        needs_option = method.options and not method.legs
        if method.availability is not Availability.AVAILABLE or needs_option:
            return None
        return self._routed(method.method_id, None)

    def _routed(self, method_id: str, option_id: str | None) -> RouteExplanation | None:
        judgement = self._judgement
        if judgement.routing is None or not judgement.internals:
            return None
        return route_of(self._case, judgement.routing, judgement, method_id, option_id)

    def _sentence(self, method: PayMethod, stop: Check | None, parts: Sequence[ScorePart] | None) -> str:
        if stop is not None:
            return stop.sentence
        if parts is None:
            return f"Available, rank {method.rank}."
        counted = ", ".join(f"{each.term} {each.score:+,}" for each in parts if each.score) or "nothing counts"
        place = f"rank {method.rank} by a score of {sum(each.score for each in parts):,} ({counted})"
        return f"{'Preferred: the first that is available, ' if method.preferred else 'Available, '}{place}."


def _with_term(channel: Channel, term_id: str) -> Channel:
    terms = tuple(term for term in channel.terms or () if term.term_id == term_id)
    return structs.replace(channel, terms=terms or None)


def _channel_sentence(best: Quote, quote: Quote | None, stop: Check | None, *, chosen: bool) -> str:
    if stop is not None:
        return stop.sentence
    if chosen:
        return (
            "Chosen: the cheapest for the payer; then the fewest lost payments, in tenths, and our lowest cost decide."
        )
    return "Usable. Another is cheaper for the payer, loses fewer payments, or costs us less."
