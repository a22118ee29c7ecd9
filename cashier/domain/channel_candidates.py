"""Candidate channels: all channels that could carry a chosen payment method at its price.

Assembly keeps the best quote; here each channel is quoted by the same rules. A channel with another
price, split or instalment term is no candidate, because the payer has agreed to one price.
`routing` chooses among the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct, structs

from cashier.domain.assembly import agreement_offer, balance_offers, free_offer, signed_agreements
from cashier.domain.bound_cards import bound_cards
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import Account, Channel
from cashier.domain.instalments import term_quotes
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.kinds import KINDS, Listing, complete
from cashier.domain.offer import NO_CHANNEL, quote, quotes_by_provider
from cashier.domain.offered_kinds import OfferedChannel
from cashier.domain.pay_method import Instrument, Kind, LegType
from cashier.domain.quote import Quote, best_quote
from cashier.domain.refusal import Refusal, silence_refusal
from cashier.domain.routing_rules import RoutedPayment
from cashier.domain.split_payment import ID_SUFFIX, SplitCandidate
from cashier.source_errors import Missing

_KINDS = frozenset(Kind)


class ChosenMethod(Struct, frozen=True):
    """The payer's choice. A field that is None narrows nothing.

    `option_id`: a bank, a chain, an instalment term, or the card that completes a balance. `card`:
    of an external card, what the vault or the caller knows (`bank`, `brand`, `type`). `provider`:
    the issuer of a scanned code.
    """

    method_id: str
    option_id: str | None = None
    card: Instrument | None = None
    provider: str | None = None


class Candidates(Struct, frozen=True):
    """`quote`: the price that all `channels` share, or the refusal; then there are no channels.

    `channels` is also empty if nothing is to pay or no channel is needed (a balance alone).
    `routed_payment`: the input of `routing.route`; None if there is nothing to route.
    """

    quote: Quote
    channels: tuple[Channel, ...] = ()
    routed_payment: RoutedPayment | None = None


class _ChosenQuotes(Struct, frozen=True):
    """The quotes of the chosen method, one per channel, and what routing rules may test.

    `refusal`: overrides the quotes.
    """

    kind: Kind
    quotes: list[Quote]
    refusal: Refusal | None = None
    bank: str | None = None
    brand: str | None = None


def candidates(case: ConsultationCase, choice: ChosenMethod) -> Candidates:
    """The candidates, sorted by channel id. A method that the case does not have is refused."""
    chosen = _chosen_quotes(case, choice)
    if chosen is None or not chosen.quotes:
        return Candidates(Quote((chosen and chosen.refusal) or _absence(case, choice.method_id)))
    best = best_quote(chosen.quotes)
    if chosen.refusal is not None:
        return Candidates(Quote(chosen.refusal, best.amounts, best.limits, best.channel))
    if best.refusal is not None or best.amounts is None or not best.amounts.payable.value:
        return Candidates(best)
    equal = [
        quote
        for quote in chosen.quotes
        if quote.refusal is None and (quote.amounts, quote.legs, quote.term) == (best.amounts, best.legs, best.term)
    ]
    channels = [quote.channel for quote in equal if quote.channel is not None]
    carried = next((leg.amount for leg in best.legs if leg.type is LegType.CHANNEL), best.amounts.payable)
    routed_payment = RoutedPayment(
        kind=chosen.kind,
        amount=carried,
        country=case.facts.order.country,
        terminal=case.request.terminal,
        product=case.request.product,
        merchant_id=case.facts.order.merchant_id,
        bank=chosen.bank,
        brand=chosen.brand,
    )
    return Candidates(
        best, tuple(sorted(channels, key=lambda channel: channel.channel_id)), routed_payment if channels else None
    )


def _chosen_quotes(case: ConsultationCase, choice: ChosenMethod) -> _ChosenQuotes | None:
    """None for a method that the case does not have."""
    name, _, instrument_id = choice.method_id.partition(":")
    if name not in _KINDS:
        return None
    kind = Kind(name)
    listing = KINDS[kind].listing
    if listing is not Listing.NOTHING_TO_PAY and free_offer(case) is not None:
        return None
    return _LISTINGS[listing](KindAssessment(case, kind), choice, instrument_id)


def _absence(case: ConsultationCase, method_id: str) -> Refusal:
    """Why a method is absent: a source that would list it is silent, or no channel carries it."""
    name = method_id.partition(":")[0]
    listing = KINDS[Kind(name)].listing if name in _KINDS else None
    facts: list[object] = [case.facts.balance] if listing is Listing.PER_ACCOUNT else []
    if listing in (Listing.PER_CARD, Listing.PER_AGREEMENT) or method_id.endswith(ID_SUFFIX):
        facts.append(case.facts.card)
    silent = next((fact for fact in facts if isinstance(fact, Missing)), None)
    return case.channel_gap or NO_CHANNEL if silent is None else silence_refusal(silent)


def _card(assessment: KindAssessment, _: ChosenMethod, card_id: str) -> _ChosenQuotes | None:
    cards = bound_cards(assessment.case).cards
    bound = next((bound for bound in cards if bound.card.card_id == card_id), None)
    if bound is None:
        return None
    return _ChosenQuotes(
        assessment.kind,
        _quotes(assessment, bound.channels, bound.card.bank, card_id),
        assessment.refusal or bound.refusal,
        bound.card.bank,
        bound.card.brand,
    )


def _agreement(assessment: KindAssessment, _: ChosenMethod, agreement_id: str) -> _ChosenQuotes | None:
    """At most one candidate: an agreement names its channel."""
    signed = signed_agreements(assessment.case)
    agreement = next((agreement for agreement in signed if agreement.agreement_id == agreement_id), None)
    if agreement is None:
        return None
    quote = agreement_offer(assessment, agreement).quote
    return _ChosenQuotes(assessment.kind, [quote], None, None if quote.channel is None else quote.channel.provider)


def _account(assessment: KindAssessment, choice: ChosenMethod, instrument_id: str) -> _ChosenQuotes | None:
    """Alone it needs no channel.

    Completed by a card: the chosen one, or else the one that the offer names.
    """
    cards = bound_cards(assessment.case)
    offers = balance_offers(assessment, cards)
    offer = next((offer for offer in offers if offer.method_id == choice.method_id), None)
    if offer is None:
        return None
    # Where promotions leave nothing to pay, the offer names no card.
    if not choice.method_id.endswith(ID_SUFFIX) or (choice.option_id is None and not offer.quote.legs):
        return _ChosenQuotes(assessment.kind, [offer.quote])
    card_id = choice.option_id or next((leg.id for leg in offer.quote.legs if leg.type is LegType.CHANNEL), None)
    account = _account_with_id(assessment.case, instrument_id.removesuffix(ID_SUFFIX))
    bound = next((bound for bound in cards.cards if bound.card.card_id == card_id and bound.refusal is None), None)
    if bound is None or account is None:
        return None
    split = SplitCandidate(cards.assessment, account)
    over_one_channel = [structs.replace(bound, refusal=None, channels=[channel]) for channel in bound.channels]
    quotes = [split.with_legs(single, split.quote(single)) for single in over_one_channel]
    return _ChosenQuotes(cards.assessment.kind, quotes, None, bound.card.bank, bound.card.brand)


def _provider(assessment: KindAssessment, _: ChosenMethod, provider_id: str) -> _ChosenQuotes | None:
    provider = assessment.providers.get(provider_id)
    if provider is None:
        return None
    quotes = _quotes(assessment, provider.channels, provider_id)
    return _ChosenQuotes(assessment.kind, quotes, assessment.refusal, provider_id)


def _option(assessment: KindAssessment, choice: ChosenMethod, _: str) -> _ChosenQuotes | None:
    if choice.option_id is None:
        return _without_option(assessment, quotes_by_provider(assessment))
    return _provider(assessment, choice, choice.option_id)


def _term(assessment: KindAssessment, choice: ChosenMethod, provider_id: str) -> _ChosenQuotes | None:
    provider = assessment.providers.get(provider_id)
    if provider is None:
        return None
    if choice.option_id is None:
        return _without_option(assessment, _quotes(assessment, provider.channels, provider_id))
    quotes = term_quotes(assessment, provider, choice.option_id)
    return _ChosenQuotes(assessment.kind, quotes, assessment.refusal, provider_id)


def _without_option(assessment: KindAssessment, quotes: list[Quote]) -> _ChosenQuotes | None:
    """No option is needed where promotions for the kind leave nothing to pay."""
    best = best_quote(quotes) if quotes else None
    if best is None or best.amounts is None or best.amounts.payable.value:
        return None
    return _ChosenQuotes(assessment.kind, [best])


def _whole_kind(assessment: KindAssessment, choice: ChosenMethod, _: str) -> _ChosenQuotes:
    card = choice.card or Instrument("")
    channels = [
        channel
        for provider in assessment.providers.values()
        for channel in provider.channels
        if _accepts(channel.channel, choice.provider, card)
    ]
    bank = card.bank or choice.provider
    return _ChosenQuotes(assessment.kind, _quotes(assessment, channels, None), assessment.refusal, bank, card.brand)


def _accepts(channel: Channel, provider: str | None, card: Instrument) -> bool:
    if provider is not None and channel.provider != provider:
        return False
    brand_fits = channel.brands is None or card.brand is None or card.brand in channel.brands
    return brand_fits and (channel.card_types is None or card.type is None or card.type in channel.card_types)


def _quotes(
    assessment: KindAssessment, channels: Iterable[OfferedChannel], bank: str | None, card_id: str | None = None
) -> list[Quote]:
    return [quote(assessment, channel, bank, card_id, None) for channel in channels]


def _free(assessment: KindAssessment, _: ChosenMethod, __: str) -> _ChosenQuotes | None:
    free = free_offer(assessment.case)
    return None if free is None else _ChosenQuotes(assessment.kind, [free.quote])


def _account_with_id(case: ConsultationCase, account_id: str) -> Account | None:
    balances = case.facts.balance
    accounts = () if isinstance(balances, Missing) else balances.accounts
    return next((account for account in accounts if account.account_id == account_id), None)


_LISTINGS: Mapping[Listing, Callable[[KindAssessment, ChosenMethod, str], _ChosenQuotes | None]] = {
    Listing.PER_CARD: _card,
    Listing.PER_AGREEMENT: _agreement,
    Listing.PER_ACCOUNT: _account,
    Listing.PER_PROVIDER: _provider,
    Listing.OPTION_PER_PROVIDER: _option,
    Listing.TERM_PER_PROVIDER: _term,
    Listing.WHOLE_KIND: _whole_kind,
    Listing.NOTHING_TO_PAY: _free,
}
complete("domain.channel_candidates", _LISTINGS, Listing)
