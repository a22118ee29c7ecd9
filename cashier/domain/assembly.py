"""Assembly: build the payment methods of one consultation from its facts.

- Per instrument: QUICK_PAY (a bound card over its bank's channels), AGREEMENT, BALANCE (alone, or
  with one card that completes it).
- Per provider: WALLET, MERCHANT_QR.
- One method with an option per bank or chain: NET_BANKING, VA, OTC.
- One method per kind over all its channels: CARD, CONSUMER_QR. Acceptance chooses the channel.

A silent source leaves its methods undetermined if they can be listed (a card without its channels).
If they cannot (no card centre, no cards), one undetermined method stands for the whole kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from cashier.domain import split_payment
from cashier.domain.bound_cards import BoundCard, bound_cards, card_offer
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.facts import ACTIVE, Account, Agreement
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.limits import over_limit, tightest_limits
from cashier.domain.money import Money
from cashier.domain.offer import Offer, best_quote_over, quotes_by_provider
from cashier.domain.pay_method import Amounts, Instrument, Kind, Limits, Option, ReasonCode, Remedy, RemedyType
from cashier.domain.presentation import account_title_and_icon, icon, provider_presentation
from cashier.domain.quote import Quote, best_quote
from cashier.domain.reason_text import option, sorted_options
from cashier.domain.refusal import Refusal, silence_refusal
from cashier.source_errors import Missing

NO_CARD = Refusal(ReasonCode.CARD_UNBOUND, "card", Remedy(RemedyType.BIND_CARD))
AGREEMENT_TERMINATED = Refusal(ReasonCode.AGREEMENT_TERMINATED, "card")
AGREEMENT_CURRENCY = Refusal(ReasonCode.CURRENCY_NOT_SUPPORTED, "card", Remedy(RemedyType.SWITCH_CURRENCY))
ACCOUNT_FROZEN = Refusal(ReasonCode.ACCOUNT_FROZEN, "balance")
CURRENCY_NOT_HELD = Refusal(ReasonCode.CURRENCY_NOT_SUPPORTED, "balance", Remedy(RemedyType.SWITCH_CURRENCY))

BY_PROVIDER = (Kind.WALLET, Kind.MERCHANT_QR)
BY_OPTION = (Kind.NET_BANKING, Kind.VA, Kind.OTC)
BY_KIND = (Kind.CARD, Kind.CONSUMER_QR)

_AGREEMENT = Kind.AGREEMENT
_INSUFFICIENT = ReasonCode.BALANCE_INSUFFICIENT
_agreement_id = attrgetter("agreement_id")


def assemble(case: ConsultationCase) -> list[Offer]:
    """Every method of the case, usable or not. The order has no meaning."""
    quick_pay = KindAssessment(case, Kind.QUICK_PAY)
    cards = [] if isinstance(case.facts.card, Missing) else bound_cards(quick_pay, case.facts.card.cards)
    offers = [
        *quick_pay_offers(quick_pay, cards),
        *agreement_offers(KindAssessment(case, _AGREEMENT)),
        *balance_offers(KindAssessment(case, Kind.BALANCE), quick_pay, cards),
    ]
    for kinds, kind_offers in (
        (BY_PROVIDER, offers_by_provider),
        (BY_OPTION, offer_by_option),
        (BY_KIND, offer_by_kind),
    ):
        for kind in kinds:
            if case.channel_gap is not None:
                offers.append(refused_kind(KindAssessment(case, kind), case.channel_gap))
            elif case.channels is not None and kind in case.channels.by_kind:
                offers += kind_offers(KindAssessment(case, kind))
    return offers


def quick_pay_offers(assessment: KindAssessment, cards: list[BoundCard]) -> list[Offer]:
    """Silence of the card centre leaves the kind undetermined, of channels or quotas each card."""
    held = assessment.case.facts.card
    if isinstance(held, Missing):
        return [refused_kind(assessment, silence_refusal(held))]
    if cards:
        return [card_offer(assessment, card) for card in cards]
    return [refused_kind(assessment, NO_CARD)] if assessment.providers or assessment.case.channel_gap else []


def agreement_offers(assessment: KindAssessment) -> list[Offer]:
    """The agreements with this order's merchant. Silent sources: as for cards."""
    held, merchant_id = assessment.case.facts.card, assessment.case.facts.order.merchant_id
    if isinstance(held, Missing):
        return [refused_kind(assessment, silence_refusal(held))]
    signed = [agreement for agreement in held.agreements if agreement.merchant_id == merchant_id]
    return [agreement_offer(assessment, agreement) for agreement in sorted(signed, key=_agreement_id)]


def agreement_offer(assessment: KindAssessment, agreement: Agreement) -> Offer:
    """A limit in another currency than the order's cannot be tested, so it refuses."""
    gateway, ceiling = assessment.case.facts.channel, agreement.single_max
    refusal = assessment.refusal or (None if agreement.status == ACTIVE else AGREEMENT_TERMINATED)
    if ceiling is not None and ceiling.currency != assessment.case.currency:
        refusal, ceiling = refusal or AGREEMENT_CURRENCY, None
    channel = None if isinstance(gateway, Missing) else gateway.by_id.get(agreement.channel_id)
    method_id, instrument = f"AGREEMENT:{agreement.agreement_id}", Instrument(agreement.agreement_id)
    terms = assessment.terms
    if channel is None or channel.kind != _AGREEMENT:
        no_quote = best_quote_over(assessment, (), None, refusal)
        return Offer(method_id, assessment, assessment.name, icon(terms.icon), instrument, no_quote)
    offered = (assessment.case.kind_availability.channel(channel, terms),)
    quote = best_quote_over(assessment, offered, channel.provider, refusal, None, ceiling)
    shown = provider_presentation(
        assessment.kind, assessment.title, terms.icon, channel.provider, channel.provider_name
    )
    return Offer(method_id, assessment, shown.title, shown.icon, instrument, quote)


def balance_offers(assessment: KindAssessment, quick_pay: KindAssessment, cards: list[BoundCard]) -> Iterator[Offer]:
    """A silent balance service leaves the kind undetermined; silent quotas, each account.

    No channel takes part.
    """
    balances = assessment.case.facts.balance
    if isinstance(balances, Missing):
        yield refused_kind(assessment, silence_refusal(balances))
        return
    amounts = assessment.amounts(None, 0, 0)
    limits, _ = tightest_limits(assessment.quotas_for(None), None, None, None, "quota")
    for account in balances.accounts:
        alone = balance_offer(assessment, account, amounts, limits)
        yield alone
        if alone.quote.refusal is not None and alone.quote.refusal.code is _INSUFFICIENT:
            yield from split_payment.offers(assessment, quick_pay, account, alone, cards)


def balance_offer(assessment: KindAssessment, account: Account, amounts: Amounts, limits: Limits) -> Offer:
    case, payable = assessment.case, amounts.payable.value
    refusal = assessment.refusal
    if refusal is None and account.status != ACTIVE:
        refusal = ACCOUNT_FROZEN
    if refusal is None and account.available.currency != case.currency:
        refusal = CURRENCY_NOT_HELD
    if refusal is None:
        refusal = over_limit(limits, payable) or insufficient_balance(account, payable) or case.quota_gap
    title, account_icon = account_title_and_icon(
        assessment.title, assessment.terms.icon, account.type, case.wording.accounts[account.type]
    )
    instrument = Instrument(account.account_id, type=account.type, available=account.available)
    quote = Quote(refusal, amounts, limits)
    return Offer(f"BALANCE:{account.account_id}", assessment, title, account_icon, instrument, quote)


def insufficient_balance(account: Account, payable: int) -> Refusal | None:
    shortfall = payable - account.available.value
    if shortfall <= 0:
        return None
    remedy = Remedy(RemedyType.TOP_UP, Money(account.available.currency, shortfall))
    return Refusal(_INSUFFICIENT, "balance", remedy, account.available)


def offers_by_provider(assessment: KindAssessment) -> list[Offer]:
    """Silent quotas leave each provider undetermined."""
    offers = []
    for provider, quote in zip(assessment.providers.values(), quotes_by_provider(assessment), strict=True):
        shown = provider.presentation
        offers.append(Offer(shown.method_id, assessment, shown.title, shown.icon, shown.instrument, quote))
    return offers


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
    return Offer(assessment.kind, assessment, assessment.name, icon(assessment.terms.icon), None, quote, options)


def refused_kind(assessment: KindAssessment, refusal: Refusal) -> Offer:
    """One refused method for those that cannot be listed.

    A refusal of the kind itself comes first.
    """
    return whole_kind(assessment, Quote(assessment.refusal or refusal))
