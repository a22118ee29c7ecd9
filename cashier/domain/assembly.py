"""Assembly: build the payment methods of one consultation from its facts.

The row of a kind (`kinds`) names its `Listing`: one method per instrument of the payer (a bound
card over its bank's channels, an agreement, an account alone or with one card that completes it),
one per provider, one with an option per provider or per instalment term, or one over all channels
of the kind. Where nothing is to pay, one method takes the place of them all: no silent source can
refuse it.

A silent source leaves its methods undetermined if they can be listed (a card without its channels).
If they cannot (no card centre, no cards), one undetermined method stands for the whole kind.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import TypeAlias

from cashier.domain import split_payment
from cashier.domain.bound_cards import BoundCards, bound_cards, card_offer
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import ACCOUNT_BARRED, ACTIVE, AGREEMENT_ENDED, Account, Agreement
from cashier.domain.instalments import offers_by_term
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.kinds import KINDS, SHOWN_OR_CONFIRMED, Listing, complete
from cashier.domain.limits import over_limit, tightest_limits, unclear_limit
from cashier.domain.money import Money
from cashier.domain.offer import Offer, best_quote_over, quotes_by_provider
from cashier.domain.offered_kinds import account_title_and_icon, provider_display
from cashier.domain.pay_method import Amounts, Instrument, Kind, Limits, Option, ReasonCode, Remedy, RemedyType
from cashier.domain.quote import Quote, best_quote
from cashier.domain.reason_text import option, sorted_options
from cashier.domain.refusal import Refusal, silence_refusal, unclear_refusal
from cashier.domain.shared_offers import shared_offers
from cashier.domain.text_form import Form
from cashier.source_errors import Missing

# Lists the methods of one kind, from the payer's instruments or from the channels.
InstrumentListing: TypeAlias = Callable[[KindAssessment, BoundCards], Iterable[Offer]]
ChannelListing: TypeAlias = Callable[[KindAssessment], Iterable[Offer]]

NO_CARD = Refusal(ReasonCode.CARD_UNBOUND, "card", Remedy(RemedyType.BIND_CARD), form=Form.NO_CARD)
AGREEMENT_TERMINATED = Refusal(ReasonCode.AGREEMENT_TERMINATED, "card")
AGREEMENT_CURRENCY = Refusal(ReasonCode.CURRENCY_NOT_SUPPORTED, "card", Remedy(RemedyType.SWITCH_CURRENCY))
AGREEMENT_UNCLEAR = unclear_refusal("card")
ACCOUNT_UNCLEAR = unclear_refusal("balance")
ACCOUNT_FROZEN = Refusal(ReasonCode.ACCOUNT_FROZEN, "balance")
CURRENCY_NOT_HELD = Refusal(ReasonCode.CURRENCY_NOT_SUPPORTED, "balance", Remedy(RemedyType.SWITCH_CURRENCY))

_QUICK_PAY, _AGREEMENT, _FREE = Kind.QUICK_PAY, Kind.AGREEMENT, Kind.FREE
_INSUFFICIENT = ReasonCode.BALANCE_INSUFFICIENT
# To charge the payer, so that a till must not. It may not read what is theirs either.
_NAMING_SUFFICES = frozenset(kind for kind, row in KINDS.items() if not SHOWN_OR_CONFIRMED[row.instrument_source])
_agreement_id = attrgetter("agreement_id")


def assemble(case: ConsultationCase) -> list[Offer]:
    """Every method of the case, usable or not. The order has no meaning."""
    return _offers(case, _INSTRUMENT_KINDS, _CHANNEL_KINDS)


def assemble_kind(case: ConsultationCase, kind: Kind) -> list[Offer]:
    """Those methods of `assemble` that are of one kind."""
    listing = KINDS[kind].listing
    instrument, channel = _INSTRUMENT_LISTINGS.get(listing), _CHANNEL_LISTINGS.get(listing)
    offers = _offers(case, [(kind, instrument)] if instrument else [], [(kind, channel)] if channel else [])
    return [offer for offer in offers if offer.offered.kind is kind]


def _offers(
    case: ConsultationCase,
    instrument_kinds: Iterable[tuple[Kind, InstrumentListing]],
    channel_kinds: Iterable[tuple[Kind, ChannelListing]],
) -> list[Offer]:
    # Tested here, and not in a function, for the consultations that have something to pay.
    if case.amount.value <= case.promotions.most_off:
        free = free_offer(case)
        if free is not None:
            return [free]
    cards = bound_cards(case)
    offers: list[Offer] = []
    for kind, instrument_offers in instrument_kinds:
        offers += instrument_offers(cards.assessment if kind is _QUICK_PAY else KindAssessment(case, kind), cards)
    gap, channels = case.channel_gap, case.channels
    if gap is not None:
        offers += [refused_kind(KindAssessment(case, kind), gap) for kind, _ in channel_kinds]
    elif channels is not None:
        offers += _channel_offers(case, channels.by_kind, channel_kinds)
    if case.at_till:
        return [anonymous(offer) if offer.offered.kind in _NAMING_SUFFICES else offer for offer in offers]
    return offers


def _channel_offers(
    case: ConsultationCase, channels: Container[str], channel_kinds: Iterable[tuple[Kind, ChannelListing]]
) -> list[Offer]:
    """The offers that channels list. `channels`: the kinds that have any."""
    shared = shared_offers(case)
    offers: list[Offer] = []
    for kind, listing in channel_kinds:
        if kind in channels:
            if shared is None or kind in case.quotas:
                offers += listing(KindAssessment(case, kind))
            else:
                offers += shared.find(case, kind, listing)
    if shared is not None:
        case.discounted.update(shared.discounted)
    return offers


def anonymous(offer: Offer) -> Offer:
    """A named member's offer at a till, where it is refused, without what a till may not read.

    That is bank and digits of a card, and what an account or a limit has left.
    """
    instrument, quote, offered = offer.instrument, offer.quote, offer.offered
    return Offer(
        offer.method_id,
        offered,
        offered.name,
        offered.icon,
        None if instrument is None else Instrument(instrument.id),
        Quote(quote.refusal, quote.amounts, None, quote.channel),
    )


def free_offer(case: ConsultationCase) -> Offer | None:
    """The only method of an order of 0, or of one that promotions for any kind bring to 0.

    None if something is to pay. Promotions for certain kinds or banks do not count: without an
    instrument there is none.
    """
    assessment = KindAssessment(case, _FREE)
    amounts = assessment.amounts()
    return None if amounts.payable.value else whole_kind(assessment, Quote(assessment.refusal, amounts))


def quick_pay_offers(assessment: KindAssessment, cards: BoundCards) -> list[Offer]:
    """Silence of the card centre leaves the kind undetermined, of channels or quotas each card."""
    held = assessment.case.facts.card
    if isinstance(held, Missing):
        return [refused_kind(assessment, silence_refusal(held))]
    if cards.cards:
        return [card_offer(assessment, card) for card in cards.cards]
    return [refused_kind(assessment, NO_CARD)] if assessment.providers or assessment.case.channel_gap else []


def agreement_offers(assessment: KindAssessment, _: BoundCards) -> list[Offer]:
    """The agreements with this order's merchant. Silent sources: as for cards."""
    held = assessment.case.facts.card
    if isinstance(held, Missing):
        return [refused_kind(assessment, silence_refusal(held))]
    return [agreement_offer(assessment, agreement) for agreement in signed_agreements(assessment.case)]


def signed_agreements(case: ConsultationCase) -> list[Agreement]:
    """The agreements with this order's merchant, by id. None while the card centre is silent."""
    held, merchant_id = case.facts.card, case.facts.order.merchant_id
    agreements = () if isinstance(held, Missing) else held.agreements
    signed = [agreement for agreement in agreements if agreement.merchant_id == merchant_id]
    return sorted(signed, key=_agreement_id)


def agreement_offer(assessment: KindAssessment, agreement: Agreement) -> Offer:
    """A limit in another currency than the order's cannot be tested, so it refuses."""
    gateway, ceiling = assessment.case.facts.channel, agreement.single_max
    refusal = assessment.refusal
    if refusal is None and agreement.status != ACTIVE:
        refusal = AGREEMENT_TERMINATED if agreement.status in AGREEMENT_ENDED else AGREEMENT_UNCLEAR
    if ceiling is not None and ceiling.currency != assessment.case.currency:
        refusal, ceiling = refusal or AGREEMENT_CURRENCY, None
    channel = None if isinstance(gateway, Missing) else gateway.by_id.get(agreement.channel_id)
    method_id, instrument = f"AGREEMENT:{agreement.agreement_id}", Instrument(agreement.agreement_id)
    offered, terms = assessment.offered, assessment.terms
    if channel is None or channel.kind != _AGREEMENT:
        no_quote = best_quote_over(assessment, (), None, refusal)
        return Offer(method_id, offered, offered.name, offered.icon, instrument, no_quote)
    quote = best_quote_over(
        assessment, (assessment.case.offered_kinds.channel(channel, terms),), channel.provider, refusal, None, ceiling
    )
    _, title, icon, _ = provider_display(
        _AGREEMENT, offered.title, terms.icon, channel.provider, channel.name_in(assessment.case.locale)
    )
    return Offer(method_id, offered, title, icon, instrument, quote)


def balance_offers(assessment: KindAssessment, cards: BoundCards) -> Iterator[Offer]:
    """A silent balance service leaves the kind undetermined; silent quotas, each account.

    No channel takes part.
    """
    balances = assessment.case.facts.balance
    if isinstance(balances, Missing):
        yield refused_kind(assessment, silence_refusal(balances))
        return
    amounts = assessment.amounts()
    limits, _ = tightest_limits(assessment.quotas_for(None), None, None, None, "quota")
    for account in balances.accounts:
        alone = balance_offer(assessment, account, amounts, limits)
        yield alone
        refusal = alone.quote.refusal
        if refusal is not None and refusal.code is _INSUFFICIENT and assessment.terms.combine:
            yield from split_payment.offers(assessment, cards, account, alone)


def balance_offer(assessment: KindAssessment, account: Account, amounts: Amounts, limits: Limits) -> Offer:
    case, payable = assessment.case, amounts.payable.value
    refusal = assessment.refusal
    if refusal is None and account.status != ACTIVE:
        refusal = ACCOUNT_FROZEN if account.status in ACCOUNT_BARRED else ACCOUNT_UNCLEAR
    if refusal is None and account.available.currency != case.currency:
        refusal = CURRENCY_NOT_HELD
    if refusal is None:
        refusal = (
            over_limit(limits, payable, most=account.available.value)
            or insufficient_balance(account, payable)
            or case.quota_gap
        )
    if refusal is None and case.unclear_quotas:
        refusal = unclear_limit(case.unclear_quotas, assessment.kind, None, None, None)
    title, account_icon = account_title_and_icon(
        assessment.offered.title, assessment.terms.icon, account.type, case.wording.accounts[account.type]
    )
    instrument = Instrument(account.account_id, type=account.type, available=account.available)
    quote = Quote(refusal, amounts, limits)
    return Offer(f"BALANCE:{account.account_id}", assessment.offered, title, account_icon, instrument, quote)


def insufficient_balance(account: Account, payable: int) -> Refusal | None:
    shortfall = payable - account.available.value
    if shortfall <= 0:
        return None
    remedy = Remedy(RemedyType.TOP_UP, Money(account.available.currency, shortfall))
    return Refusal(_INSUFFICIENT, "balance", remedy, account.available)


def offers_by_provider(assessment: KindAssessment) -> list[Offer]:
    """Silent quotas leave each provider undetermined."""
    offered = assessment.offered
    return [
        Offer(provider.method_id, offered, provider.title, provider.icon, provider.instrument, quote)
        for provider, quote in zip(assessment.providers.values(), quotes_by_provider(assessment), strict=True)
    ]


def offer_by_option(assessment: KindAssessment) -> list[Offer]:
    """One method with the figures of its best option.

    Silent quotas leave each option undetermined.
    """
    providers, quotes = assessment.providers.values(), quotes_by_provider(assessment)
    options = [
        option(assessment.case, provider.provider, provider.provider_name, quote)
        for provider, quote in zip(providers, quotes, strict=True)
    ]
    return [whole_kind(assessment, best_quote(quotes), sorted_options(options))]


def offer_by_kind(assessment: KindAssessment) -> list[Offer]:
    """One method over all channels of the kind. Silent quotas leave it undetermined."""
    channels = [channel for provider in assessment.providers.values() for channel in provider.channels]
    return [whole_kind(assessment, best_quote_over(assessment, channels, None, assessment.refusal))]


def whole_kind(assessment: KindAssessment, quote: Quote, options: tuple[Option, ...] = ()) -> Offer:
    """One method for the whole kind, with the kind's own name and icon."""
    offered = assessment.offered
    return Offer(assessment.kind, offered, offered.name, offered.icon, None, quote, options)


def refused_kind(assessment: KindAssessment, refusal: Refusal) -> Offer:
    """One refused method for those that cannot be listed.

    A refusal of the kind itself comes first.
    """
    return whole_kind(assessment, Quote(assessment.refusal or refusal))


_INSTRUMENT_LISTINGS: Mapping[Listing, InstrumentListing] = {
    Listing.PER_CARD: quick_pay_offers,
    Listing.PER_AGREEMENT: agreement_offers,
    Listing.PER_ACCOUNT: balance_offers,
}
_CHANNEL_LISTINGS: Mapping[Listing, ChannelListing] = {
    Listing.PER_PROVIDER: offers_by_provider,
    Listing.OPTION_PER_PROVIDER: offer_by_option,
    Listing.TERM_PER_PROVIDER: offers_by_term,
    Listing.WHOLE_KIND: offer_by_kind,
}
_IN_THE_PLACE_OF_ALL = {Listing.NOTHING_TO_PAY: free_offer}
complete("domain.assembly", {**_INSTRUMENT_LISTINGS, **_CHANNEL_LISTINGS, **_IN_THE_PLACE_OF_ALL}, Listing)
_INSTRUMENT_KINDS = [
    (kind, _INSTRUMENT_LISTINGS[row.listing]) for kind, row in KINDS.items() if row.listing in _INSTRUMENT_LISTINGS
]
_CHANNEL_KINDS = [
    (kind, _CHANNEL_LISTINGS[row.listing]) for kind, row in KINDS.items() if row.listing in _CHANNEL_LISTINGS
]
