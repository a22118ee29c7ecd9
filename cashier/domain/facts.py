"""What the upstreams say, as typed structs, and `Facts`: one field per source, each an answer or the `Missing` in its place.

The structs are what the wire is decoded into: a field that is absent or of another type does not become a default, it garbles the
answer. Fields that we do not use are not listed and cost nothing.

Where an upstream lists or counts kinds, products or terminals they are texts here: it may know some that we do not, and what we do not know
we cannot offer, so it is passed over like an unknown field. A state that we do not know garbles the answer: it may mean anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from cashier.domain.money import BPS, Money
from cashier.domain.order import Country, Instant, Order
from cashier.source_errors import Missing

Bps = Annotated[int, Meta(ge=0, le=BPS)]


class MerchantStatus(StrEnum):
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"


class Merchant(Struct, frozen=True):
    merchant_id: str
    name: str
    status: MerchantStatus
    country: Country
    mcc: str
    products: frozenset[str]
    kinds: frozenset[str]


class MemberStatus(StrEnum):
    ACTIVE = "ACTIVE"
    FROZEN = "FROZEN"
    CLOSED = "CLOSED"


class LastUsed(Struct, frozen=True):
    kind: str
    instrument_id: str | None = None


class Usage(Struct, frozen=True):
    kind: str
    count: Annotated[int, Meta(ge=0)]


class Member(Struct, frozen=True):
    user_id: str
    status: MemberStatus
    country: Country
    kyc_level: int
    usage: tuple[Usage, ...]
    last_used: LastUsed | None = None


class CardType(StrEnum):
    DEBIT = "DEBIT"
    CREDIT = "CREDIT"


class CardStatus(StrEnum):
    ACTIVE = "ACTIVE"
    FROZEN = "FROZEN"
    UNBOUND = "UNBOUND"


class Card(Struct, frozen=True):
    """A bound card. `expiry` is the last month in which it is good, `2031-05`."""

    card_id: str
    bank: str
    bank_name: str
    type: CardType
    brand: str
    last4: Annotated[str, Meta(pattern=r"^[0-9]{4}(?![\s\S])")]
    expiry: Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])(?![\s\S])")]
    status: CardStatus


# What agreements and accounts call their good state. The contract leaves the others open: whatever is not this cannot be used.
ACTIVE = "ACTIVE"


class Agreement(Struct, frozen=True):
    agreement_id: str
    merchant_id: str
    channel_id: str
    status: str
    single_max: Money | None = None


class Cards(Struct, frozen=True):
    """What the card centre holds for a user: bound cards and signed agreements.

    Every card may be combined with every account, so how many there may be is bounded: more than anybody has, or something is wrong.
    """

    user_id: str
    cards: Annotated[tuple[Card, ...], Meta(max_length=256)]
    agreements: Annotated[tuple[Agreement, ...], Meta(max_length=256)]


class AccountType(StrEnum):
    BALANCE = "BALANCE"
    MONEY_FUND = "MONEY_FUND"
    GIFT = "GIFT"


class Account(Struct, frozen=True):
    account_id: str
    type: AccountType
    status: str
    available: Money


class Balances(Struct, frozen=True):
    user_id: str
    accounts: Annotated[tuple[Account, ...], Meta(max_length=32)]


class Promotion(Struct, frozen=True):
    """A discount on offer. Of one `group` one may be used; one that is not `stackable` is used alone. No `kinds` means any kind."""

    promotion_id: str
    type: str
    title: str
    threshold: Money
    kinds: frozenset[str]
    group: str
    stackable: bool
    amount_off: Money | None = None
    percent_off_bps: Bps | None = None
    cap: Money | None = None
    banks: frozenset[str] | None = None
    expires_at: Instant | None = None


class Boost(Struct, frozen=True):
    kind: str
    weight_bps: Bps
    label: str


class Marketing(Struct, frozen=True):
    user_id: str
    promotions: tuple[Promotion, ...]
    boosts: tuple[Boost, ...]


class ChannelStatus(StrEnum):
    OPEN = "OPEN"
    CLOSED = "CLOSED"
    MAINTENANCE = "MAINTENANCE"


class Channel(Struct, frozen=True):
    """A road that money can take. `min` and `max` bound what it carries; `cost_bps` and `fixed_cost` are ours, `fee_bps` the payer's."""

    channel_id: str
    kind: str
    provider: str
    provider_name: str
    status: ChannelStatus
    currencies: frozenset[str]
    min: Money
    max: Money
    cost_bps: Bps
    success_bps: Bps
    terminals: frozenset[str]
    until: Instant | None = None
    fixed_cost: Money | None = None
    fee_bps: Bps | None = None
    products: frozenset[str] | None = None
    brands: frozenset[str] | None = None
    card_types: frozenset[str] | None = None


class Channels(Struct, frozen=True):
    """The channel gateway's answer, prepared: by kind and provider, and by id. `views` is the memory of `view`, which bounds it."""

    by_kind: dict[str, dict[str, list[Channel]]]
    by_id: dict[str, Channel]
    views: dict[tuple[str, ...], Any] = field(default_factory=dict)

    @staticmethod
    def prepared(channels: Iterable[Channel]) -> Channels:
        """Index a list of channels. Their order does not matter: everything below is sorted by id."""
        by_kind: dict[str, dict[str, list[Channel]]] = {}
        by_id: dict[str, Channel] = {}
        for channel in sorted(channels, key=_channel_id):
            by_id[channel.channel_id] = channel
            by_kind.setdefault(channel.kind, {}).setdefault(channel.provider, []).append(channel)
        return Channels(by_kind, by_id)


_channel_id = attrgetter("channel_id")


class Scope(Struct, frozen=True):
    """What a quota is about. What is not named is not narrowed."""

    kind: str
    bank: str | None = None
    channel_id: str | None = None
    card_id: str | None = None


class Period(Struct, frozen=True):
    limit: Money
    used: Money


class Quota(Struct, frozen=True):
    scope: Scope
    single: Money | None = None
    daily: Period | None = None
    monthly: Period | None = None


class Quotas(Struct, frozen=True):
    """The quotas of one user in one currency, prepared: by the kind and the bank that their scope names, None being every bank."""

    by_kind: dict[str, dict[str | None, list[Quota]]]

    @staticmethod
    def prepared(quotas: Iterable[Quota]) -> Quotas:
        by_kind: dict[str, dict[str | None, list[Quota]]] = {}
        for quota in quotas:
            by_kind.setdefault(quota.scope.kind, {}).setdefault(quota.scope.bank, []).append(quota)
        return Quotas(by_kind)


class Facts(Struct, frozen=True):
    """All that is known for one consultation. Order, merchant and member are required: without them there is no consultation."""

    order: Order
    merchant: Merchant
    member: Member
    card: Cards | Missing
    balance: Balances | Missing
    channel: Channels | Missing
    quota: Quotas | Missing
    marketing: Marketing | Missing
