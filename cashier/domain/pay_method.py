"""Payment methods of an answer, in the wire's shape: price, limits, availability and rank of each.

`gc=False`: none can be part of a cycle, and each answer creates some thirty methods of a dozen
objects.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import UNSET, Struct, UnsetType

from cashier.domain.money import Money


class Kind(StrEnum):
    """The kinds of payment method. `FREE`: nothing is to pay, so no instrument is charged."""

    QUICK_PAY = "QUICK_PAY"
    AGREEMENT = "AGREEMENT"
    CARD = "CARD"
    NET_BANKING = "NET_BANKING"
    VA = "VA"
    OTC = "OTC"
    WALLET = "WALLET"
    BALANCE = "BALANCE"
    MERCHANT_QR = "MERCHANT_QR"
    CONSUMER_QR = "CONSUMER_QR"
    INSTALMENT = "INSTALMENT"
    FREE = "FREE"


class Availability(StrEnum):
    AVAILABLE = "AVAILABLE"
    UNDETERMINED = "UNDETERMINED"
    UNAVAILABLE = "UNAVAILABLE"


class ReasonCode(StrEnum):
    """Business refusals in the order of checks. The last four mean undetermined, never refused."""

    NOT_OFFERED = "NOT_OFFERED"
    MERCHANT_NOT_PERMITTED = "MERCHANT_NOT_PERMITTED"
    PRODUCT_NOT_SUPPORTED = "PRODUCT_NOT_SUPPORTED"
    TERMINAL_NOT_SUPPORTED = "TERMINAL_NOT_SUPPORTED"
    COUNTRY_NOT_SUPPORTED = "COUNTRY_NOT_SUPPORTED"
    CURRENCY_NOT_SUPPORTED = "CURRENCY_NOT_SUPPORTED"
    KYC_REQUIRED = "KYC_REQUIRED"
    ORDER_EXPIRES_SOON = "ORDER_EXPIRES_SOON"
    CARD_UNBOUND = "CARD_UNBOUND"
    CARD_FROZEN = "CARD_FROZEN"
    CARD_EXPIRED = "CARD_EXPIRED"
    AGREEMENT_TERMINATED = "AGREEMENT_TERMINATED"
    ACCOUNT_FROZEN = "ACCOUNT_FROZEN"
    NO_CHANNEL = "NO_CHANNEL"
    CHANNEL_CLOSED = "CHANNEL_CLOSED"
    CHANNEL_MAINTENANCE = "CHANNEL_MAINTENANCE"
    AMOUNT_NOT_CARRIABLE = "AMOUNT_NOT_CARRIABLE"
    BELOW_MIN = "BELOW_MIN"
    ABOVE_SINGLE_LIMIT = "ABOVE_SINGLE_LIMIT"
    DAILY_LIMIT_EXCEEDED = "DAILY_LIMIT_EXCEEDED"
    MONTHLY_LIMIT_EXCEEDED = "MONTHLY_LIMIT_EXCEEDED"
    BALANCE_INSUFFICIENT = "BALANCE_INSUFFICIENT"
    SOURCE_TIMEOUT = "SOURCE_TIMEOUT"
    SOURCE_ERROR = "SOURCE_ERROR"
    SOURCE_OVERLOADED = "SOURCE_OVERLOADED"
    SOURCE_PENDING = "SOURCE_PENDING"


class RemedyType(StrEnum):
    TOP_UP = "TOP_UP"
    REDUCE_AMOUNT = "REDUCE_AMOUNT"
    BIND_CARD = "BIND_CARD"
    UPDATE_CARD = "UPDATE_CARD"
    WAIT_UNTIL = "WAIT_UNTIL"
    SWITCH_CURRENCY = "SWITCH_CURRENCY"
    RETRY = "RETRY"


class Remedy(Struct, frozen=True, omit_defaults=True, gc=False):
    """What would help.

    `amount`: to add, or to reduce the payable amount to. `until`: when to try again.
    """

    type: RemedyType
    amount: Money | None = None
    until: datetime | None = None


class Reason(Struct, frozen=True, gc=False):
    """Why a method is not available. `code` is for machines, `message` for people.

    `source`: the source that refused or was silent.
    """

    code: ReasonCode
    message: str
    source: str | None
    remedy: Remedy | None


class Discount(Struct, frozen=True, gc=False):
    promotion_id: str
    title: str
    amount: Money


class OfferedPromotion(Struct, frozen=True, gc=False):
    """A promotion that applies to a method, and what it takes off alone.

    `best`: it belongs to the best legal set of all that apply, whatever the payer chose.
    """

    promotion_id: str
    title: str
    amount: Money
    best: bool


class Amounts(Struct, frozen=True, gc=False):
    """`payable = order - sum(discounts) + fee`, exactly."""

    order: Money
    fee: Money
    discounts: tuple[Discount, ...]
    payable: Money


class Limits(Struct, frozen=True, gc=False):
    """The tightest limits that apply; null where there is none."""

    single: Money | None
    daily_remaining: Money | None
    monthly_remaining: Money | None


class Instrument(Struct, frozen=True, omit_defaults=True, gc=False):
    """A card, an account, an agreement or a wallet. Fields that do not apply to it are absent."""

    id: str
    bank: str | None = None
    bank_name: str | None = None
    last4: str | None = None
    type: str | None = None
    brand: str | None = None
    available: Money | None = None


class InstalmentTerms(Struct, frozen=True, gc=False):
    """What a payer owes by instalments. Together they are the payable amount, exactly.

    `per_instalment`: of each but the last, which has the remainder. `apr_bps`: the annual rate.
    """

    count: int
    per_instalment: Money
    last_instalment: Money
    apr_bps: int


class Option(Struct, frozen=True, gc=False):
    """A choice within a method.

    That is a bank, a store chain, a card that completes a balance, or a number of instalments.
    `amount`: the price with this option. `terms`: of instalments.
    """

    option_id: str
    title: str
    availability: Availability
    reason: Reason | None
    amount: Amounts | None = None
    terms: InstalmentTerms | None = None


class LegType(StrEnum):
    BALANCE = "BALANCE"
    CHANNEL = "CHANNEL"


class Leg(Struct, frozen=True, gc=False):
    """One instrument's part of a split payment.

    The legs of a method add up to its payable amount.
    """

    type: LegType
    id: str
    amount: Money


class Health(StrEnum):
    UP = "UP"
    FLUCTUATING = "FLUCTUATING"
    DOWN = "DOWN"
    UNKNOWN = "UNKNOWN"


class NextAction(StrEnum):
    """The action that follows a submit."""

    NONE = "NONE"
    CHALLENGE = "CHALLENGE"
    REDIRECT = "REDIRECT"
    DISPLAY_QR = "DISPLAY_QR"
    DISPLAY_CODE = "DISPLAY_CODE"
    DISPLAY_VA = "DISPLAY_VA"
    SDK = "SDK"
    AWAIT = "AWAIT"


class PayMethod(Struct, frozen=True, gc=False):
    """One payment method.

    `amount` is null if the fee cannot be known, for example without a channel. `expires_in_s`: the
    lifetime of what a submit shows the payer, at most the rest of the order's; null if it shows
    nothing that runs out.
    `promotions`: those that apply at this price, chosen or not, the most valuable first; absent if
    there is none.
    """

    method_id: str
    kind: Kind
    title: str
    icon: str
    instrument: Instrument | None
    availability: Availability
    reason: Reason | None
    amount: Amounts | None
    limits: Limits | None
    options: tuple[Option, ...]
    health: Health
    preferred: bool
    rank: int
    rank_reasons: tuple[str, ...]
    next_action: NextAction
    required_fields: tuple[str, ...]
    expires_in_s: int | None
    legs: tuple[Leg, ...] = ()
    promotions: tuple[OfferedPromotion, ...] | UnsetType = UNSET
