"""Repairs: the same case without the one obstacle that a rule met.

They let a decision go on to the rules behind the first one that refused. A repair is as small as it
can be; where the obstacle is an absence (no channel, no card, no answer) there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from msgspec import structs

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.explanation.rules import Rule
from cashier.domain.facts import ACTIVE, Balances, Cards, Channel, Channels, Member, Quota, Quotas
from cashier.domain.money import MAX_VALUE, Money
from cashier.domain.pay_method import Kind
from cashier.domain.split_payment import ID_SUFFIX
from cashier.source_errors import Missing

_FOREVER = "9999-12"


def repaired(case: ConsultationCase, rule: Rule, kind: Kind, method_id: str) -> ConsultationCase | None:
    """The case in which this rule does not refuse the method; None if there is none."""
    repair = _REPAIRS.get(rule)
    return None if repair is None else repair(case, kind, method_id)


def with_facts(case: ConsultationCase, **facts: Any) -> ConsultationCase:
    return ConsultationCase(case.request, structs.replace(case.facts, **facts), case.catalog, case.now)


def with_channels(case: ConsultationCase, channels: Iterable[Channel]) -> ConsultationCase:
    return with_facts(case, channel=Channels.prepared(channels))


def kinds_carried(kind: Kind, method_id: str) -> frozenset[str]:
    """The kinds whose channels and quotas concern the method: two of a split payment."""
    return frozenset((kind, Kind.QUICK_PAY) if method_id.endswith(ID_SUFFIX) else (kind,))


def _terms(**changes: Any) -> Callable[[ConsultationCase, Kind, str], ConsultationCase]:
    def repair(case: ConsultationCase, kind: Kind, _: str) -> ConsultationCase:
        methods = case.catalog.methods
        catalog = structs.replace(case.catalog, methods={**methods, kind: structs.replace(methods[kind], **changes)})
        return ConsultationCase(case.request, case.facts, catalog, case.now)

    return repair


def _contract(case: ConsultationCase, kind: Kind, _: str) -> ConsultationCase:
    merchant = case.facts.merchant
    return with_facts(case, merchant=structs.replace(merchant, kinds=merchant.kinds | {kind}))


def _kyc(case: ConsultationCase, kind: Kind, method_id: str) -> ConsultationCase:
    member = case.facts.member
    if not isinstance(member, Member):
        return _terms(kyc_level=0)(case, kind, method_id)
    level = case.catalog.methods[kind].kyc_level
    return with_facts(case, member=structs.replace(member, kyc_level=level))


def _time(case: ConsultationCase, kind: Kind, _: str) -> ConsultationCase:
    ends = case.now + timedelta(seconds=case.catalog.methods[kind].needs_s)
    return with_facts(case, order=structs.replace(case.facts.order, expires_at=ends))


def _card(**changes: Any) -> Callable[[ConsultationCase, Kind, str], ConsultationCase | None]:
    def repair(case: ConsultationCase, _: Kind, method_id: str) -> ConsultationCase | None:
        held, card_id = case.facts.card, method_id.partition(":")[2]
        if isinstance(held, Missing):
            return None
        cards = tuple(structs.replace(card, **changes) if card.card_id == card_id else card for card in held.cards)
        return with_facts(case, card=Cards(held.user_id, cards, held.agreements))

    return repair


def _agreement(**changes: Any) -> Callable[[ConsultationCase, Kind, str], ConsultationCase | None]:
    def repair(case: ConsultationCase, _: Kind, method_id: str) -> ConsultationCase | None:
        held, agreement_id = case.facts.card, method_id.partition(":")[2]
        if isinstance(held, Missing):
            return None
        agreements = tuple(
            structs.replace(agreement, **changes) if agreement.agreement_id == agreement_id else agreement
            for agreement in held.agreements
        )
        return with_facts(case, card=Cards(held.user_id, held.cards, agreements))

    return repair


def _account(case: ConsultationCase, method_id: str, **changes: Any) -> ConsultationCase | None:
    held, account_id = case.facts.balance, method_id.partition(":")[2].removesuffix(ID_SUFFIX)
    if isinstance(held, Missing):
        return None
    accounts = tuple(
        structs.replace(account, **changes) if account.account_id == account_id else account
        for account in held.accounts
    )
    return with_facts(case, balance=Balances(held.user_id, accounts))


def _account_status(case: ConsultationCase, _: Kind, method_id: str) -> ConsultationCase | None:
    return _account(case, method_id, status=ACTIVE)


def _balance(case: ConsultationCase, _: Kind, method_id: str) -> ConsultationCase | None:
    return _account(case, method_id, available=Money(case.currency, MAX_VALUE))


def _channels(change: Callable[[Channel, ConsultationCase], Channel]) -> Callable[..., ConsultationCase | None]:
    """The repair of every channel that could carry the method."""

    def repair(case: ConsultationCase, kind: Kind, method_id: str) -> ConsultationCase | None:
        gateway, kinds = case.facts.channel, kinds_carried(kind, method_id)
        if isinstance(gateway, Missing):
            return None
        return with_channels(
            case, [change(each, case) if each.kind in kinds else each for each in gateway.by_id.values()]
        )

    return repair


def _product(channel: Channel, _: ConsultationCase) -> Channel:
    return structs.replace(channel, products=None)


def _terminal(channel: Channel, case: ConsultationCase) -> Channel:
    return structs.replace(channel, terminals=channel.terminals | {case.request.terminal})


def _currency(channel: Channel, case: ConsultationCase) -> Channel:
    return structs.replace(
        channel,
        currencies=channel.currencies | {case.currency},
        min=Money(case.currency, channel.min.value),
        max=Money(case.currency, channel.max.value),
    )


def _open(channel: Channel, _: ConsultationCase) -> Channel:
    return structs.replace(channel, status="OPEN")


def _step(channel: Channel, _: ConsultationCase) -> Channel:
    return structs.replace(channel, step=1)


def _minimum(channel: Channel, _: ConsultationCase) -> Channel:
    return structs.replace(channel, min=Money(channel.min.currency, 0))


def _maximum(channel: Channel, _: ConsultationCase) -> Channel:
    return structs.replace(channel, max=Money(channel.max.currency, MAX_VALUE))


def _quotas(**changes: Any) -> Callable[[ConsultationCase, Kind, str], ConsultationCase | None]:
    """Without one limit of the quotas. One that has no other limit goes."""

    def repair(case: ConsultationCase, kind: Kind, method_id: str) -> ConsultationCase | None:
        quotas, kinds = case.facts.quota, kinds_carried(kind, method_id)
        if isinstance(quotas, Missing):
            return case
        by_kind = {
            name: {bank: [*_limiting(found, **changes)] if name in kinds else found for bank, found in by_bank.items()}
            for name, by_bank in quotas.by_kind.items()
        }
        return with_facts(case, quota=Quotas(by_kind, quotas.unclear))

    return repair


def _limiting(quotas: Iterable[Quota], **changes: Any) -> Iterable[Quota]:
    for quota in quotas:
        left = structs.replace(quota, **changes)
        if left.single or left.daily or left.monthly:
            yield left


def _single(case: ConsultationCase, kind: Kind, method_id: str) -> ConsultationCase | None:
    for repair in (_quotas(single=None), _channels(_maximum), _agreement(single_max=None)):
        case = repair(case, kind, method_id) or case
    return case


def _no_quotas(case: ConsultationCase, _: Kind, __: str) -> ConsultationCase:
    return with_facts(case, quota=Quotas.prepared(()))


def _clear_quotas(case: ConsultationCase, _: Kind, __: str) -> ConsultationCase | None:
    quotas = case.facts.quota
    return None if isinstance(quotas, Missing) else with_facts(case, quota=Quotas(quotas.by_kind))


_REPAIRS: Mapping[Rule, Callable[[ConsultationCase, Kind, str], ConsultationCase | None]] = {
    Rule.KIND_OFFERED: _terms(offered=True),
    Rule.MERCHANT_CONTRACT: _contract,
    Rule.KIND_PRODUCT: _terms(products=None),
    Rule.KIND_TERMINAL: _terms(terminals=None),
    Rule.KIND_COUNTRY: _terms(countries=None),
    Rule.KIND_CURRENCY: _terms(currencies=None),
    Rule.KYC_LEVEL: _kyc,
    Rule.TIME_LEFT: _time,
    Rule.CARD_STATUS: _card(status=ACTIVE),
    Rule.CARD_EXPIRY: _card(expiry=_FOREVER),
    Rule.AGREEMENT_STATUS: _agreement(status=ACTIVE),
    Rule.AGREEMENT_CURRENCY: _agreement(single_max=None),
    Rule.ACCOUNT_STATUS: _account_status,
    Rule.CHANNEL_PRODUCT: _channels(_product),
    Rule.CHANNEL_TERMINAL: _channels(_terminal),
    Rule.CHANNEL_CURRENCY: _channels(_currency),
    Rule.CHANNEL_OPEN: _channels(_open),
    Rule.AMOUNT_STEP: _channels(_step),
    Rule.AMOUNT_MINIMUM: _channels(_minimum),
    Rule.SINGLE_LIMIT: _single,
    Rule.DAILY_LIMIT: _quotas(daily=None),
    Rule.MONTHLY_LIMIT: _quotas(monthly=None),
    Rule.BALANCE_SUFFICIENT: _balance,
    Rule.QUOTAS_KNOWN: _no_quotas,
    Rule.QUOTAS_CLEAR: _clear_quotas,
}
