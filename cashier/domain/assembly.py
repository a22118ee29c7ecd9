"""Assembly: from facts to ways to pay. One small function per sort of kind; what may refuse each is in its words.

By instrument: QUICK_PAY (a bound card over its bank's channel), AGREEMENT, BALANCE (alone, or with one card that completes it).
By provider: WALLET and MERCHANT_QR, one way each. By option: NET_BANKING, VA and OTC, one way with the banks or chains in it.
By kind: CARD and CONSUMER_QR, one way whatever the number of channels; which of them carries it is decided at acceptance.

A source that is silent leaves its ways undetermined where they can be named (a card without its channel), and one undetermined way for
the whole kind where they cannot (no card centre, no cards to name).
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from cashier.domain import card_offers, presentation, split_payment
from cashier.domain.card_offers import BoundCard
from cashier.domain.case import ConsultationCase
from cashier.domain.facts import ACTIVE, Account, Agreement
from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.limits import beyond, tightest
from cashier.domain.money import Money
from cashier.domain.offer import Offer, by_carrier, over
from cashier.domain.pay_method import Amounts, Instrument, Kind, Limits, Option, ReasonCode, Remedy, RemedyType
from cashier.domain.quote import Quote, best_quote
from cashier.domain.reason_text import option, ordered
from cashier.domain.refusal import Refusal, silence
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
    """Every way that somebody could ask about, usable or not, in no order that matters."""
    line = KindAssessment(case, Kind.QUICK_PAY)
    held = [] if isinstance(case.facts.card, Missing) else card_offers.bound(line, case.facts.card.cards)
    found = [
        *quick_pay(line, held),
        *agreements(KindAssessment(case, _AGREEMENT)),
        *balances(KindAssessment(case, Kind.BALANCE), line, held),
    ]
    for kinds, offers in ((BY_PROVIDER, by_provider), (BY_OPTION, by_option), (BY_KIND, by_kind)):
        for kind in kinds:
            if case.channel_gap is not None:
                found.append(unnamed(KindAssessment(case, kind), case.channel_gap))
            elif case.channels is not None and kind in case.channels.by_kind:
                found += offers(KindAssessment(case, kind))
    return found


def quick_pay(line: KindAssessment, held: list[BoundCard]) -> list[Offer]:
    """Silent: the card centre leaves the kind undetermined, the channel gateway and the quotas each card."""
    missing = line.case.facts.card
    if isinstance(missing, Missing):
        return [unnamed(line, silence(missing))]
    if held:
        return [card_offers.offer(line, card) for card in held]
    return [unnamed(line, NO_CARD)] if line.carriers or line.case.channel_gap else []


def agreements(line: KindAssessment) -> list[Offer]:
    """Those signed with this order's merchant. Silent: as with cards."""
    held, merchant_id = line.case.facts.card, line.case.facts.order.merchant_id
    if isinstance(held, Missing):
        return [unnamed(line, silence(held))]
    its = [agreement for agreement in held.agreements if agreement.merchant_id == merchant_id]
    return [agreement_offer(line, agreement) for agreement in sorted(its, key=_agreement_id)]


def agreement_offer(line: KindAssessment, agreement: Agreement) -> Offer:
    """A limit in another currency than the order's is one that this order cannot be held to, so it refuses."""
    gateway, most = line.case.facts.channel, agreement.single_max
    refusal = line.refusal or (None if agreement.status == ACTIVE else AGREEMENT_TERMINATED)
    if most is not None and most.currency != line.case.currency:
        refusal, most = refusal or AGREEMENT_CURRENCY, None
    channel = None if isinstance(gateway, Missing) else gateway.by_id.get(agreement.channel_id)
    method_id, instrument = f"AGREEMENT:{agreement.agreement_id}", Instrument(agreement.agreement_id)
    if channel is None or channel.kind != _AGREEMENT:
        return Offer(
            method_id, line, line.name, presentation.icon(line.terms.icon), instrument, over(line, (), None, refusal)
        )
    found = over(line, (line.case.storefront.channel(channel, line.terms),), channel.provider, refusal, None, most)
    seen = presentation.of_provider(line.kind, line.title, line.terms.icon, channel.provider, channel.provider_name)
    return Offer(method_id, line, seen.title, seen.icon, instrument, found)


def balances(line: KindAssessment, cards_line: KindAssessment, held: list[BoundCard]) -> Iterator[Offer]:
    """Silent: the balance service leaves the kind undetermined, the quotas each account. No channel is in it, so none can refuse it."""
    accounts = line.case.facts.balance
    if isinstance(accounts, Missing):
        yield unnamed(line, silence(accounts))
        return
    amounts, (left, _) = line.amounts(None, 0, 0), tightest(line.covering(None), None, None, None, "quota")
    for account in accounts.accounts:
        alone = balance_offer(line, account, amounts, left)
        yield alone
        if alone.quote.refusal is not None and alone.quote.refusal.code is _INSUFFICIENT:
            yield from split_payment.offers(line, cards_line, account, alone, held)


def balance_offer(line: KindAssessment, account: Account, amounts: Amounts, left: Limits) -> Offer:
    case, payable = line.case, amounts.payable.value
    refusal = line.refusal
    if refusal is None and account.status != ACTIVE:
        refusal = ACCOUNT_FROZEN
    if refusal is None and account.available.currency != case.currency:
        refusal = CURRENCY_NOT_HELD
    if refusal is None:
        refusal = beyond(left, payable) or short_of(account, payable) or case.quota_gap
    title, icon = presentation.of_account(
        line.title, line.terms.icon, account.type, case.wording.accounts[account.type]
    )
    instrument = Instrument(account.account_id, type=account.type, available=account.available)
    return Offer(f"BALANCE:{account.account_id}", line, title, icon, instrument, Quote(refusal, amounts, left))


def short_of(account: Account, payable: int) -> Refusal | None:
    missing = payable - account.available.value
    if missing <= 0:
        return None
    remedy = Remedy(RemedyType.TOP_UP, Money(account.available.currency, missing))
    return Refusal(_INSUFFICIENT, "balance", remedy, account.available)


def by_provider(line: KindAssessment) -> list[Offer]:
    """Silent: the channel gateway leaves the kind undetermined, the quotas each provider."""
    found = []
    for carrier, quote in zip(line.carriers.values(), by_carrier(line), strict=True):
        seen = carrier.face
        found.append(Offer(seen.method_id, line, seen.title, seen.icon, seen.instrument, quote))
    return found


def by_option(line: KindAssessment) -> list[Offer]:
    """Silent: the channel gateway leaves the kind undetermined, the quotas each option. The best option's figures are the way's."""
    carriers, quotes = line.carriers.values(), by_carrier(line)
    second = [
        option(line.case, carrier.provider, carrier.provider_name, quote)
        for carrier, quote in zip(carriers, quotes, strict=True)
    ]
    return [named(line, best_quote(quotes), ordered(second))]


def by_kind(line: KindAssessment) -> list[Offer]:
    """Silent: the channel gateway and the quotas leave it undetermined."""
    roads = [road for carrier in line.carriers.values() for road in carrier.roads]
    return [named(line, over(line, roads, None, line.refusal))]


def named(line: KindAssessment, found: Quote, second: tuple[Option, ...] = ()) -> Offer:
    """One way for a whole kind, under the kind's own name."""
    return Offer(line.kind, line, line.name, presentation.icon(line.terms.icon), None, found, second)


def unnamed(line: KindAssessment, refusal: Refusal) -> Offer:
    """The kind as a whole stands for ways that cannot be named. What refuses the kind refuses them all, whatever they are."""
    return named(line, Quote(line.refusal or refusal))
