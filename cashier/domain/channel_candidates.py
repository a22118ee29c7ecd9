"""Candidates: the channels that could carry a chosen way to pay, at the price that was named. Which of them does is in `routing`.

Each road is quoted by the rules of assembly, one by one, where assembly keeps only the best. A channel that would cost the payer anything
else, or split the payment otherwise, is not a candidate: the payer has agreed to one price.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from cashier.domain import assembly
from cashier.domain.card_offers import BoundCard, bound
from cashier.domain.case import ConsultationCase
from cashier.domain.facts import Account, Channel
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.offer import NO_CHANNEL, quote
from cashier.domain.pay_method import Instrument, Kind, LegType
from cashier.domain.quote import Quote, best_quote
from cashier.domain.refusal import Refusal, silence
from cashier.domain.routing_rules import RoutedPayment
from cashier.domain.split_payment import SplitCandidate
from cashier.domain.storefront_channel import StorefrontChannel
from cashier.source_errors import Missing

_COMPLETED = f"+{Kind.QUICK_PAY}"
_KINDS = frozenset(Kind)


class ChosenMethod(Struct, frozen=True):
    """What the payer chose. `option_id`: a bank, a chain, or the card that completes a balance. `card`: of an external card what the
    vault or the caller knows (`bank`, `brand`, `type`). `provider`: of a scanned code, whose it is. What is None narrows nothing."""

    method_id: str
    option_id: str | None = None
    card: Instrument | None = None
    provider: str | None = None


class Candidates(Struct, frozen=True):
    """`quote` is the price that all `channels` share, or why there is none: then there are no channels. None are needed, and there are
    none, where nothing is to pay. `passage`: what is to be carried, for `routing.route`; None where there is nothing to route."""

    quote: Quote
    channels: tuple[Channel, ...] = ()
    passage: RoutedPayment | None = None


class _Way(Struct, frozen=True):
    """The quotes of one chosen way, a road each, and what routing may ask of it. `refusal`: what refuses it whatever the channels say."""

    kind: Kind
    quotes: list[Quote]
    refusal: Refusal | None = None
    bank: str | None = None
    brand: str | None = None


def candidates(case: ConsultationCase, choice: ChosenMethod) -> Candidates:
    """By channel id. A way without a channel, a balance alone, has none; one that this case does not have is refused."""
    way = _way(case, choice)
    if way is None or not way.quotes:
        return Candidates(Quote((way and way.refusal) or _absence(case, choice.method_id)))
    best = best_quote(way.quotes)
    if way.refusal is not None:
        return Candidates(Quote(way.refusal, best.amounts, best.limits, best.channel))
    if best.refusal is not None or best.amounts is None or not best.amounts.payable.value:
        return Candidates(best)
    same = [
        found
        for found in way.quotes
        if found.refusal is None and (found.amounts, found.legs) == (best.amounts, best.legs)
    ]
    channels = [found.channel for found in same if found.channel is not None]
    carried = next((leg.amount for leg in best.legs if leg.type is LegType.CHANNEL), best.amounts.payable)
    order, view = case.facts.order, case.storefront
    passage = RoutedPayment(
        way.kind, carried, order.country, view.terminal, view.product, order.merchant_id, way.bank, way.brand
    )
    return Candidates(
        best, tuple(sorted(channels, key=lambda channel: channel.channel_id)), passage if channels else None
    )


def _way(case: ConsultationCase, choice: ChosenMethod) -> _Way | None:
    """None for one that this case does not have."""
    name, _, instrument_id = choice.method_id.partition(":")
    if name not in _KINDS:
        return None
    match Kind(name):
        case Kind.QUICK_PAY:
            return _quick_pay(case, instrument_id)
        case Kind.AGREEMENT:
            return _agreement(case, choice.method_id)
        case Kind.BALANCE:
            return _balance(case, choice, instrument_id)
        case Kind.CARD | Kind.CONSUMER_QR as kind:
            return _by_kind(KindAssessment(case, kind), choice)
        case kind:
            provider = instrument_id if kind in assembly.BY_PROVIDER else choice.option_id
            return _by_provider(KindAssessment(case, kind), provider)


def _absence(case: ConsultationCase, method_id: str) -> Refusal:
    """Why a way is not there: somebody who would know of it is silent, or nobody carries it."""
    balance = (case.facts.balance,) if method_id.startswith(Kind.BALANCE) else ()
    card = (
        (case.facts.card,)
        if method_id.startswith((Kind.QUICK_PAY, Kind.AGREEMENT)) or method_id.endswith(_COMPLETED)
        else ()
    )
    silent = next((fact for fact in (*balance, *card) if isinstance(fact, Missing)), None)
    return case.channel_gap or NO_CHANNEL if silent is None else silence(silent)


def _quick_pay(case: ConsultationCase, card_id: str) -> _Way | None:
    line = KindAssessment(case, Kind.QUICK_PAY)
    held = next((one for one in _held(line) if one.card.card_id == card_id), None)
    if held is None:
        return None
    return _Way(
        line.kind,
        _quotes(line, held.roads, held.card.bank, card_id),
        line.refusal or held.refusal,
        held.card.bank,
        held.card.brand,
    )


def _agreement(case: ConsultationCase, method_id: str) -> _Way | None:
    """An agreement names its channel: there is one candidate at most."""
    offers = assembly.agreements(KindAssessment(case, Kind.AGREEMENT))
    found = next((offer.quote for offer in offers if offer.method_id == method_id), None)
    if found is None:
        return None
    return _Way(Kind.AGREEMENT, [found], None, None if found.channel is None else found.channel.provider)


def _balance(case: ConsultationCase, choice: ChosenMethod, instrument_id: str) -> _Way | None:
    """Alone it needs no channel. With a card: the one that was chosen, or the one that its offer names."""
    alone, line = KindAssessment(case, Kind.BALANCE), KindAssessment(case, Kind.QUICK_PAY)
    cards = _held(line)
    offer = next(
        (found for found in assembly.balances(alone, line, cards) if found.method_id == choice.method_id), None
    )
    if offer is None:
        return None
    # Where promotions leave nothing to pay, there is no card to be named either.
    if not choice.method_id.endswith(_COMPLETED) or (choice.option_id is None and not offer.quote.legs):
        return _Way(Kind.BALANCE, [offer.quote])
    card_id = choice.option_id or next((leg.id for leg in offer.quote.legs if leg.type is LegType.CHANNEL), None)
    account = _account(case, instrument_id.removesuffix(_COMPLETED))
    held = next((one for one in cards if one.card.card_id == card_id and one.refusal is None), None)
    if held is None or account is None:
        return None
    completion = SplitCandidate(line, account)
    single = [BoundCard(held.card, held.title, None, [road]) for road in held.roads]
    quotes = [completion.with_legs(one, completion.over(one)) for one in single]
    return _Way(line.kind, quotes, None, held.card.bank, held.card.brand)


def _by_provider(line: KindAssessment, provider: str | None) -> _Way | None:
    carrier = None if provider is None else line.carriers.get(provider)
    return None if carrier is None else _Way(line.kind, _quotes(line, carrier.roads, provider), line.refusal, provider)


def _by_kind(line: KindAssessment, choice: ChosenMethod) -> _Way:
    card = choice.card or Instrument("")
    roads = [
        road
        for carrier in line.carriers.values()
        for road in carrier.roads
        if _takes(road.channel, choice.provider, card)
    ]
    return _Way(line.kind, _quotes(line, roads, None), line.refusal, card.bank or choice.provider, card.brand)


def _takes(channel: Channel, provider: str | None, card: Instrument) -> bool:
    if provider is not None and channel.provider != provider:
        return False
    brand_fits = channel.brands is None or card.brand is None or card.brand in channel.brands
    return brand_fits and (channel.card_types is None or card.type is None or card.type in channel.card_types)


def _quotes(
    line: KindAssessment, roads: Iterable[StorefrontChannel], bank: str | None, card_id: str | None = None
) -> list[Quote]:
    return [quote(line, road, bank, card_id, None) for road in roads]


def _held(line: KindAssessment) -> list[BoundCard]:
    cards = line.case.facts.card
    return [] if isinstance(cards, Missing) else bound(line, cards.cards)


def _account(case: ConsultationCase, account_id: str) -> Account | None:
    accounts = case.facts.balance
    held = () if isinstance(accounts, Missing) else accounts.accounts
    return next((account for account in held if account.account_id == account_id), None)
