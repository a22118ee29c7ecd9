"""Join report: values in the sources' answers that match nothing in each other, for operators.

Banks without a counterpart are legal, so these are hints and no faults.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cashier.domain.facts import Cards, Channels, Marketing, Member, Merchant, Quota, Quotas
from cashier.domain.kinds import KINDS
from cashier.domain.pay_method import Kind

_KINDS = frozenset(kind.value for kind in Kind)
_OVER_CHANNELS = frozenset(kind.value for kind, row in KINDS.items() if row.needs_channel)


def join_report(facts: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each value that matches nothing.

    `facts`: by source; another value in the place of a fact stands for a source without one.
    """
    channels = facts.get("channel")
    cards = facts.get("card")
    if isinstance(facts.get("merchant"), Merchant):
        yield from _merchant(facts["merchant"], channels)
    if isinstance(facts.get("member"), Member):
        yield from _unknown_kinds("member usage", (usage.kind for usage in facts["member"].usage))
    if isinstance(cards, Cards) and isinstance(channels, Channels):
        banks = channels.by_kind.get(Kind.QUICK_PAY, {}).keys()
        for card in cards.cards:
            yield from _unmatched("card bank", card.bank, banks, "provider of a QUICK_PAY channel")
        for agreement in cards.agreements:
            yield from _unmatched("agreement channel_id", agreement.channel_id, channels.by_id, "channel")
    if isinstance(facts.get("quota"), Quotas):
        yield from _quotas(facts["quota"], cards, channels)
    if isinstance(facts.get("marketing"), Marketing):
        yield from _marketing(facts["marketing"], channels)


def _merchant(merchant: Merchant, channels: object) -> Iterator[str]:
    yield from _unknown_kinds("merchant kinds", merchant.kinds)
    if isinstance(channels, Channels):
        for kind in sorted(merchant.kinds & _OVER_CHANNELS - channels.by_kind.keys()):
            yield f"merchant kinds has {kind}, but no channel is of this kind"


def _quotas(quotas: Quotas, cards: object, channels: object) -> Iterator[str]:
    rows: list[Quota] = [*quotas.unclear]
    rows += [quota for by_bank in quotas.by_kind.values() for scoped in by_bank.values() for quota in scoped]
    for quota in rows:
        scope = quota.scope
        yield from _unknown_kinds("quota scope.kind", (scope.kind,))
        if not (quota.single or quota.daily or quota.monthly):
            yield f"a quota on {scope.kind} has none of single, daily and monthly"
        if isinstance(channels, Channels) and scope.bank is not None:
            yield from _unmatched("quota scope.bank", scope.bank, _providers(channels), "provider of a channel")
        if isinstance(channels, Channels) and scope.channel_id is not None:
            yield from _unmatched("quota scope.channel_id", scope.channel_id, channels.by_id, "channel")
        if isinstance(cards, Cards) and scope.card_id is not None:
            held = [card.card_id for card in cards.cards]
            yield from _unmatched("quota scope.card_id", scope.card_id, held, "card of the user")


def _marketing(marketing: Marketing, channels: object) -> Iterator[str]:
    for promotion in marketing.promotions:
        yield from _unknown_kinds("promotion kinds", promotion.kinds)
        if isinstance(channels, Channels):
            for bank in sorted(promotion.banks or ()):
                yield from _unmatched("promotion banks", bank, _providers(channels), "provider of a channel")
    yield from _unknown_kinds("boost kind", (boost.kind for boost in marketing.boosts))


def _unknown_kinds(where: str, kinds: Iterable[str]) -> Iterator[str]:
    for kind in sorted(set(kinds) - _KINDS):
        yield from _unmatched(where, kind, _KINDS, "kind of payment method")


def _unmatched(where: str, value: str, known: Iterable[str], what: str) -> Iterator[str]:
    known = list(known)
    if value in known:
        return
    by_case = {name.upper(): name for name in known}
    near = [by_case[name] for name in difflib.get_close_matches(value.upper(), by_case, 1)]
    near = near or [name for name in known if value and name.upper().startswith(value.upper())][:1]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    yield f"{where} {value!r} is no {what}{hint}"


def _providers(channels: Channels) -> set[str]:
    return {provider for by_provider in channels.by_kind.values() for provider in by_provider}
