"""Assembly: from facts to ways to pay. One small function per sort of kind; what may refuse each is in its words.

By instrument: QUICK_PAY (a bound card over its bank's channel), AGREEMENT, BALANCE (alone, or with one card that completes it).
By provider: WALLET and MERCHANT_QR, one way each. By option: NET_BANKING, VA and OTC, one way with the banks or chains in it.
By kind: CARD and CONSUMER_QR, one way whatever the number of channels; which of them carries it is decided at acceptance.

A source that is silent leaves its ways undetermined where they can be named (a card without its channel), and one undetermined way for
the whole kind where they cannot (no card centre, no cards to name).
"""

from __future__ import annotations

from collections.abc import Iterator

from cashier.answer import Missing
from cashier.domain import cards, combined, options
from cashier.domain.cards import BoundCard
from cashier.domain.case import Case, Line
from cashier.domain.facts import ACTIVE, Account, Agreement, Channel
from cashier.domain.limits import Bound, beyond
from cashier.domain.method import Amounts, Instrument, Kind, Option, ReasonCode, Remedy, RemedyType
from cashier.domain.money import Money
from cashier.domain.offer import Offer, Quote, over
from cashier.domain.refusal import Refusal, silence

NO_CARD = Refusal(ReasonCode.NOT_OFFERED, "card", Remedy(RemedyType.BIND_CARD))
AGREEMENT_TERMINATED = Refusal(ReasonCode.AGREEMENT_TERMINATED, "card")
ACCOUNT_FROZEN = Refusal(ReasonCode.ACCOUNT_FROZEN, "balance")
CURRENCY_NOT_HELD = Refusal(ReasonCode.CURRENCY_NOT_SUPPORTED, "balance", Remedy(RemedyType.SWITCH_CURRENCY))

BY_PROVIDER = (Kind.WALLET, Kind.MERCHANT_QR)
BY_OPTION = (Kind.NET_BANKING, Kind.VA, Kind.OTC)
BY_KIND = (Kind.CARD, Kind.CONSUMER_QR)


def assemble(case: Case) -> list[Offer]:
    """Every way that somebody could ask about, usable or not, in no order that matters."""
    line = Line(case, Kind.QUICK_PAY)
    held = [] if isinstance(case.facts.card, Missing) else cards.bound(line, case.facts.card.cards)
    return [
        *quick_pay(line, held),
        *agreements(Line(case, Kind.AGREEMENT)),
        *balances(Line(case, Kind.BALANCE), line, held),
        *(offer for kind in BY_PROVIDER for offer in by_provider(Line(case, kind))),
        *(offer for kind in BY_OPTION for offer in by_option(Line(case, kind))),
        *(offer for kind in BY_KIND for offer in by_kind(Line(case, kind))),
    ]


def quick_pay(line: Line, held: list[BoundCard]) -> Iterator[Offer]:
    """Silent: the card centre leaves the kind undetermined, the channel gateway and the quotas each card."""
    missing = line.case.facts.card
    if isinstance(missing, Missing):
        yield from unnamed(line, silence(missing))
    elif held:
        for card in held:
            yield cards.offer(line, card)
    elif line.channels:
        yield from unnamed(line, NO_CARD)


def agreements(line: Line) -> Iterator[Offer]:
    """Those signed with this order's merchant. Silent: as with cards."""
    held, merchant_id = line.case.facts.card, line.case.facts.order.merchant_id
    if isinstance(held, Missing):
        yield from unnamed(line, silence(held))
        return
    for agreement in held.agreements:
        if agreement.merchant_id == merchant_id:
            yield agreement_offer(line, agreement)


def agreement_offer(line: Line, agreement: Agreement) -> Offer:
    case, channels, most = line.case, line.case.facts.channel, agreement.single_max
    refusal = line.refusal or (None if agreement.status == ACTIVE else AGREEMENT_TERMINATED)
    channel = None if isinstance(channels, Missing) else channels.by_id.get(agreement.channel_id)
    ceiling = Bound(most, "card") if most is not None and most.currency == case.currency else None
    found = over(line, () if channel is None else (channel,), channel.provider if channel else None, refusal, ceiling=ceiling)
    return provider_offer(line, channel, found, f"AGREEMENT:{agreement.agreement_id}", Instrument(agreement.agreement_id))


def balances(line: Line, cards_line: Line, held: list[BoundCard]) -> Iterator[Offer]:
    """Silent: the balance service leaves the kind undetermined, the quotas each account. No channel is in it, so none can refuse it."""
    case = line.case
    accounts = case.facts.balance
    if isinstance(accounts, Missing):
        yield from unnamed(line, silence(accounts))
        return
    amounts = case.priced(case.discounts(frozenset((Kind.BALANCE,)), None, 0), 0)
    for account in accounts.accounts:
        alone = balance_offer(line, account, amounts)
        yield alone
        if alone.quote.refusal is not None and alone.quote.refusal.code is ReasonCode.BALANCE_INSUFFICIENT:
            yield from combined.offers(line, cards_line, account, alone, held)


def balance_offer(line: Line, account: Account, amounts: Amounts) -> Offer:
    case, payable = line.case, amounts.payable.value
    space = line.room(None, None, None)
    refusal = line.refusal
    if refusal is None and account.status != ACTIVE:
        refusal = ACCOUNT_FROZEN
    if refusal is None and account.available.currency != case.currency:
        refusal = CURRENCY_NOT_HELD
    if refusal is None:
        refusal = beyond(space, payable) or short_of(account, payable) or case.quota_gap
    return Offer(
        f"BALANCE:{account.account_id}",
        line,
        line.title(account=case.wording.accounts[account.type]),
        line.icon(account.type),
        Instrument(account.account_id, type=account.type, available=account.available),
        Quote(refusal, amounts, space.shown()),
    )


def short_of(account: Account, payable: int) -> Refusal | None:
    missing = payable - account.available.value
    if missing <= 0:
        return None
    remedy = Remedy(RemedyType.TOP_UP, Money(account.available.currency, missing))
    return Refusal(ReasonCode.BALANCE_INSUFFICIENT, "balance", remedy, account.available)


def by_provider(line: Line) -> Iterator[Offer]:
    """Silent: the channel gateway leaves the kind undetermined, the quotas each provider."""
    if line.case.channel_gap:
        yield from unnamed(line, line.case.channel_gap)
    for provider, channels in line.channels.items():
        found = over(line, channels, provider, line.refusal)
        yield provider_offer(line, channels[0], found, f"{line.kind}:{provider}", Instrument(provider))


def by_option(line: Line) -> Iterator[Offer]:
    """Silent: the channel gateway leaves the kind undetermined, the quotas each option."""
    if line.case.channel_gap:
        yield from unnamed(line, line.case.channel_gap)
    if line.channels:
        quotes = {provider: over(line, channels, provider, line.refusal) for provider, channels in line.channels.items()}
        second, chosen = options.by_provider(line.case, quotes)
        yield named(line, chosen, second)


def by_kind(line: Line) -> Iterator[Offer]:
    """Silent: the channel gateway and the quotas leave it undetermined."""
    if line.case.channel_gap:
        yield from unnamed(line, line.case.channel_gap)
    channels = [channel for same in line.channels.values() for channel in same]
    if channels:
        yield named(line, over(line, channels, None, line.refusal))


def provider_offer(line: Line, channel: Channel | None, found: Quote, method_id: str, instrument: Instrument) -> Offer:
    if channel is None:
        return Offer(method_id, line, line.name, line.icon(), instrument, found)
    return Offer(method_id, line, line.provider_title(channel.provider_name), line.icon(channel.provider), instrument, found)


def named(line: Line, found: Quote, second: tuple[Option, ...] = ()) -> Offer:
    """One way for a whole kind, under the kind's own name."""
    return Offer(line.kind, line, line.name, line.icon(), None, found, second)


def unnamed(line: Line, refusal: Refusal) -> Iterator[Offer]:
    """The kind as a whole stands for ways that cannot be named, unless the kind is refused anyway: then there is nothing to name."""
    if line.refusal is None:
        yield named(line, Quote(refusal))
