"""The upstream side of the contract, restated strictly: an unknown field is an error."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,63}$")]
Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}$")]
Bps = Annotated[int, Meta(ge=0, le=10_000)]
Instant = Annotated[datetime, Meta(tz=True)]
Kind = Literal[
    "QUICK_PAY", "AGREEMENT", "CARD", "NET_BANKING", "VA", "OTC", "WALLET", "BALANCE", "MERCHANT_QR", "CONSUMER_QR",
    "INSTALMENT",
]  # fmt: skip
Product = Literal["STANDARD_CASHIER", "EMBEDDED_CASHIER", "SCAN"]
Terminal = Literal["APP", "H5", "PC", "SDK", "POS", "MINI_PROGRAM"]
CardType = Literal["DEBIT", "CREDIT"]


class Strict(Struct, forbid_unknown_fields=True):
    pass


class Money(Strict):
    currency: Literal["CNY", "IDR", "JPY", "KWD"]
    value: Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Order(Strict):
    order_id: Id
    merchant_id: Id
    status: Literal["PENDING", "PAYING", "PAID", "CLOSED", "REFUNDED"]
    amount: Money
    product: Product
    country: Country
    category: str
    title: str
    expires_at: Instant
    user_id: Id | None = None


class Result(Strict):
    order_id: Id
    status: Literal["PENDING", "PAYING", "PAID", "CLOSED", "CLOSED_REFUNDING", "REFUNDED"]
    payment_id: Id | None = None
    paid: Money | None = None
    closed_reason: str | None = None


class Merchant(Strict):
    merchant_id: Id
    name: str
    status: Literal["ACTIVE", "SUSPENDED"]
    country: Country
    mcc: Annotated[str, Meta(pattern=r"^[0-9]{4}$")]
    products: list[Product]
    kinds: list[Kind]


class LastUsed(Strict):
    kind: Kind
    instrument_id: Id


class Usage(Strict):
    kind: Kind
    count: Annotated[int, Meta(ge=0)]


class Member(Strict):
    user_id: Id
    status: Literal["ACTIVE", "FROZEN", "CLOSED"]
    country: Country
    kyc_level: int
    usage: list[Usage]
    last_used: LastUsed | None = None


class Card(Strict):
    card_id: Id
    bank: str
    bank_name: str
    type: CardType
    brand: str
    last4: Annotated[str, Meta(pattern=r"^[0-9]{4}$")]
    expiry: Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
    status: Literal["ACTIVE", "FROZEN", "UNBOUND"]
    bank_names: dict[str, str] | None = None


class Agreement(Strict):
    agreement_id: Id
    merchant_id: Id
    channel_id: Id
    status: Literal["ACTIVE", "TERMINATED"]
    single_max: Money | None = None


class Cards(Strict):
    user_id: Id
    cards: list[Card]
    agreements: list[Agreement]


class Account(Strict):
    account_id: Id
    type: Literal["BALANCE", "MONEY_FUND", "GIFT"]
    status: Literal["ACTIVE", "FROZEN"]
    available: Money


class Balances(Strict):
    user_id: Id
    accounts: list[Account]


class Promotion(Strict):
    promotion_id: Id
    type: Literal["COUPON", "FULL_REDUCTION", "RED_PACKET", "INSTANT_DISCOUNT"]
    title: str
    threshold: Money
    kinds: list[Kind]
    group: str
    stackable: bool
    amount_off: Money | None = None
    percent_off_bps: Bps | None = None
    cap: Money | None = None
    banks: list[str] | None = None
    expires_at: Instant | None = None


class Boost(Strict):
    kind: Kind
    weight_bps: Bps
    label: str


class Promotions(Strict):
    user_id: Id
    promotions: list[Promotion]
    boosts: list[Boost]


class InstalmentTerm(Strict):
    term_id: Id
    count: Annotated[int, Meta(ge=2)]
    fee_bps: Bps
    apr_bps: Annotated[int, Meta(ge=0)]


class Channel(Strict):
    channel_id: Id
    kind: Kind
    provider: str
    provider_name: str
    status: Literal["OPEN", "CLOSED", "MAINTENANCE"]
    currencies: list[str]
    min: Money
    max: Money
    cost_bps: Bps
    success_bps: Bps
    terminals: list[Terminal]
    until: Instant | None = None
    fixed_cost: Money | None = None
    fee_bps: Bps | None = None
    provider_names: dict[str, str] | None = None
    products: list[Product] | None = None
    brands: list[str] | None = None
    card_types: list[CardType] | None = None
    step: Annotated[int, Meta(ge=1)] | None = None
    terms: list[InstalmentTerm] | None = None


class Channels(Strict):
    channels: list[Channel]


class Scope(Strict):
    kind: Kind
    bank: str | None = None
    channel_id: Id | None = None
    card_id: Id | None = None


class Period(Strict):
    limit: Money
    used: Money


class Quota(Strict):
    scope: Scope
    single: Money | None = None
    daily: Period | None = None
    monthly: Period | None = None


class Quotas(Strict):
    user_id: Id
    quotas: list[Quota]


class Challenge(Strict):
    challenge_id: Id
    type: Literal["SMS_OTP", "PASSWORD", "BIOMETRIC", "THREE_DS"]
    render_value: str
    attempts_left: int
    expires_at: Instant
    resend_after_s: int | None = None


class Decision(Strict):
    decision: Literal["ACCEPT", "REJECT", "CHALLENGE"]
    decision_id: Id
    code: str | None = None
    challenge: Challenge | None = None


class Verified(Strict):
    status: Literal["PASSED", "FAILED", "EXPIRED"]
    attempts_left: int


class Failure(Strict):
    code: str
    text: str
    promotion_id: str | None = None


class Redirect(Strict, tag_field="type", tag="REDIRECT"):
    method: Literal["GET", "POST"]
    url: str
    fields: dict[str, str] | None = None
    applink: str | None = None


class DisplayQr(Strict, tag_field="type", tag="DISPLAY_QR"):
    data: str
    expires_at: Instant


class DisplayCode(Strict, tag_field="type", tag="DISPLAY_CODE"):
    code: str
    institution: str
    expires_at: Instant
    barcode: str | None = None
    instructions_url: str | None = None


class DisplayVa(Strict, tag_field="type", tag="DISPLAY_VA"):
    bank: str
    account_no: str
    account_name: str
    amount: Money
    expires_at: Instant


class Payment(Strict):
    payment_id: Id
    order_id: Id
    fingerprint: str
    submitted_at: Instant
    merchant_id: Id
    amount: Money
    status: Literal["PROCESSING", "ACTION_REQUIRED", "USER_PAYING", "SUCCEEDED", "FAILED"]
    user_id: Id | None = None
    failure: Failure | None = None
    next_action: Redirect | DisplayQr | DisplayCode | DisplayVa | None = None
    method_id: str | None = None
    option_id: str | None = None
    expires_at: Instant | None = None
    reversal_reason: str | None = None
    received: Money | None = None
    returned: Money | None = None


class ConsultBody(Strict):
    """The fields of a consultation request that the sandbox's cases use."""

    order_id: Id
    merchant_id: Id
    product: Product
    terminal: Terminal
    user_id: Id | None = None
    amount: Money | None = None
    country: Country | None = None
    locale: str | None = None


READ_TYPES: dict[str, type[Strict]] = {
    "order": Order,
    "acquirer": Result,
    "merchant": Merchant,
    "member": Member,
    "card": Cards,
    "balance": Balances,
    "marketing": Promotions,
    "channel": Channels,
    "quota": Quotas,
}
