"""Views: what the templates get, one struct per page.

All of a view is ready to be shown: amounts and times are texts in the page's language, refusals and
messages are those of the core. Labels that never change are in `texts/`; templates add them. No
field is markup, except `QrView.svg`, which we draw ourselves: everything else is escaped.

A time comes as a text for people and as `…_at`, RFC 3339 with an offset, for scripts.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from markupsafe import Markup
from msgspec import Struct


class Link(Struct, frozen=True):
    """`external`: it leaves the cashier."""

    text: str
    url: str
    external: bool = False


class Form(Struct, frozen=True):
    """A form and its hidden fields. The CSRF token is one of them."""

    action: str
    fields: tuple[tuple[str, str], ...] = ()


class Deadline(Struct, frozen=True):
    """`text`: the time by the payer's clock, such as `30 Nov, 14:30`."""

    expires_at: str
    text: str


class OrderView(Struct, frozen=True):
    order_id: str
    title: str
    amount: str
    merchant: str | None = None
    deadline: Deadline | None = None


class Language(Struct, frozen=True):
    """`name`: in that language itself."""

    locale: str
    name: str
    url: str


class PageView(Struct, frozen=True, kw_only=True):
    """What surrounds every page.

    `locale`: one of `texts/`. `prefix`: the path that the pages are mounted under. `now`: the
    server's time, from which countdowns run. `order`: None where there is none, or where it may not
    be shown. `back`: to the shop. `refresh`: the address that shows the present state, for "check
    again" and, without JavaScript, after `refresh_after_s`. `live`: the address of the page's
    updates; None where nothing can change.
    """

    locale: str
    now: str
    order: OrderView | None = None
    back: str | None = None
    refresh: str | None = None
    refresh_after_s: int | None = None
    live: str | None = None
    languages: tuple[Language, ...] = ()
    prefix: str = ""


class NoticeTone(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Notice(Struct, frozen=True):
    """Above the content. `lines`: single changes or faults. `field`: the element id of its field.

    An ERROR gets the focus and is announced.
    """

    tone: NoticeTone
    text: str
    lines: tuple[str, ...] = ()
    field: str | None = None


# --- The checkout ---


class State(StrEnum):
    """Of a method or an option. CHECKING: undetermined, or not known yet."""

    AVAILABLE = "available"
    CHECKING = "checking"
    UNAVAILABLE = "unavailable"


class AmountLine(Struct, frozen=True):
    """A sum that is part of another. A discount is written with its minus sign."""

    title: str
    amount: str


class AmountView(Struct, frozen=True, kw_only=True):
    """`payable = order - discounts + fee`. `fee`: None if there is none.

    `parts`: what each instrument of a split payment pays.
    """

    payable: str
    order: str
    discounts: tuple[AmountLine, ...] = ()
    fee: str | None = None
    parts: tuple[AmountLine, ...] = ()


class InstalmentView(Struct, frozen=True):
    """The terms of an instalment plan. `last`: the last one, if it is another amount."""

    count: int
    each: str
    annual_rate: str
    last: str | None = None


class OptionRow(Struct, frozen=True, kw_only=True):
    """A bank, a chain or an instalment plan of a method. `key`: an element id, stable per option.

    `amount`: None if it is that of its method.
    """

    key: str
    value: str
    title: str
    icon: str | None = None
    state: State = State.AVAILABLE
    reason: str | None = None
    amount: AmountView | None = None
    instalment: InstalmentView | None = None
    checked: bool = False


class MethodRow(Struct, frozen=True, kw_only=True):
    """A payment method. `key`: an element id, stable per method, also in updates.

    `placeholder`: it stands for the methods of a kind that are not known yet. `icon`: as of the
    consultation, such as `bank/cmb`. `badges`: why it is recommended. `hint`: what happens after
    "pay", such as a page of the bank. `remedy`: what would help. `option_name`: the name of the
    radio buttons of its options.
    """

    key: str
    kind: str
    value: str
    title: str
    icon: str
    placeholder: bool = False
    state: State = State.AVAILABLE
    amount: AmountView | None = None
    badges: tuple[str, ...] = ()
    hint: str | None = None
    reason: str | None = None
    remedy: str | None = None
    remedy_link: Link | None = None
    options: tuple[OptionRow, ...] = ()
    option_name: str = ""
    checked: bool = False


class CouponRow(Struct, frozen=True, kw_only=True):
    """A promotion that the payer may choose. `amount`: what it takes off alone, at most.

    `applies_to`: which methods, if not all.
    """

    key: str
    value: str
    title: str
    amount: str
    checked: bool = False
    best: bool = False
    applies_to: str | None = None


class CouponsView(Struct, frozen=True, kw_only=True):
    """The coupons of an order. The form is sent by GET: a choice is an address.

    It sends `name` per chosen coupon, or the button's `none` or `best` as `mode_name`.
    `live`: the address of the updates of a choice. `saved`: what the present choice takes off at
    most; None without.
    """

    form: Form
    name: str
    mode_name: str
    live: str | None = None
    coupons: tuple[CouponRow, ...]
    automatic: bool = True
    saved: str | None = None


class WithheldMethod(Struct, frozen=True):
    """A method, or `method/option`, that cannot be chosen. `code`: of its reason. `source`: of that
    reason, if it has one.
    """

    name: str
    state: str
    code: str
    source: str | None = None


class SourceLine(Struct, frozen=True):
    """What a source contributed, by the names of the API. `after`: its time, as a text."""

    name: str
    status: str
    after: str


class DeveloperView(Struct, frozen=True, kw_only=True):
    """For the engineer who integrates the pages, in English: nothing that a payer should read."""

    request_id: str
    withheld: tuple[WithheldMethod, ...]
    sources: tuple[SourceLine, ...]


class CheckoutView(Struct, frozen=True, kw_only=True):
    """The methods of an order: `recommended` first, the rest folded, with those that cannot be used
    now, `refused`, at its end.

    `method_name`: the name of the methods' radio buttons. `blocked`: why nothing can be paid;
    `paid`: because it is paid already; `resume`: to the attempt that blocks. `checking`: some
    methods may still change. `checking_coupons`: promotions may still lower prices.
    """

    form: Form
    method_name: str
    recommended: tuple[MethodRow, ...] = ()
    others: tuple[MethodRow, ...] = ()
    refused: tuple[MethodRow, ...] = ()
    coupons: CouponsView | None = None
    checking_coupons: bool = False
    notice: Notice | None = None
    blocked: str | None = None
    paid: bool = False
    resume: Link | None = None
    checking: bool = False
    developer: DeveloperView | None = None

    @property
    def can_pay(self) -> bool:
        return any(row.state is State.AVAILABLE for row in (*self.recommended, *self.others))

    @property
    def chosen_amount(self) -> str | None:
        """What the present choice costs. A script shows it: without one, another choice would not
        change it."""
        row = next((each for each in (*self.recommended, *self.others) if each.checked), None)
        if row is None:
            return None
        option = next((each for each in row.options if each.checked), None)
        amount = option.amount if option is not None and option.amount is not None else row.amount
        return None if amount is None else amount.payable


# --- A payment ---


class ChallengeType(StrEnum):
    SMS_OTP = "SMS_OTP"
    PASSWORD = "PASSWORD"  # noqa: S105 - a name, not one
    BIOMETRIC = "BIOMETRIC"
    THREE_DS = "THREE_DS"


class PaymentHead(Struct, frozen=True, kw_only=True):
    """What is paid and how, on every page of a payment.

    `message`: the core's, in the page's language; empty where the page says it already.
    """

    payment_id: str
    amount: str
    message: str
    method: str | None = None
    icon: str | None = None


class ChallengeView(Struct, frozen=True, kw_only=True):
    """`masked`: the telephone number or bank that the risk service names, where that says more
    than the type.

    `value_name`: the name of the answer's field. `wrong`: why the last answer did not pass.
    `resend`: to send the code again, not before `resend_after_s`. `link`: to the bank's page, for
    THREE_DS. `cancel`: to end the payment.
    """

    payment: PaymentHead
    type: ChallengeType
    form: Form
    value_name: str = "value"
    masked: str | None = None
    wrong: str | None = None
    deadline: Deadline | None = None
    resend: Form | None = None
    resend_after_s: int | None = None
    resent: bool = False
    link: str | None = None
    cancel: Form | None = None


class RedirectView(Struct, frozen=True, kw_only=True):
    """A page of a bank or wallet. `fields`: None for a link, else a form that is sent by POST.

    `applink`: opens the wallet's app.
    """

    url: str
    host: str
    fields: tuple[tuple[str, str], ...] | None = None
    applink: str | None = None


class QrView(Struct, frozen=True, kw_only=True):
    """`svg`: drawn by us, dark on light. `link`: opens the same on this device, if it is one."""

    svg: Markup
    deadline: Deadline | None = None
    link: str | None = None


class CodeView(Struct, frozen=True, kw_only=True):
    """`barcode`: the bar code's content, if it is another one."""

    code: str
    institution: str
    deadline: Deadline | None = None
    barcode: str | None = None
    instructions: str | None = None


class AccountView(Struct, frozen=True, kw_only=True):
    """A virtual account. `account_no` is copied as it is, of the amount `amount_digits`.

    Both amounts: None where another sum is due.
    """

    bank: str
    account_no: str
    account_name: str
    amount: str | None = None
    amount_digits: str | None = None
    deadline: Deadline | None = None


class AppView(Struct, frozen=True):
    """To be continued in an app: a biometric step, or the provider's SDK."""


Step: TypeAlias = RedirectView | QrView | CodeView | AccountView | AppView


class ActionView(Struct, frozen=True, kw_only=True):
    """What the payer does to pay. `notice`: such as too little that came.

    `paid`: asks the service now, for "I have paid". `replace`: ends it, to pay in another way.
    `cancel`: ends it.
    """

    payment: PaymentHead
    step: Step
    notice: Notice | None = None
    paid: Form | None = None
    replace: Form | None = None
    cancel: Form | None = None


class Outcome(StrEnum):
    """Of a payment, as its payer sees it. The first six are not final."""

    PROCESSING = "processing"
    USER_PAYING = "user_paying"
    CONFIRMING = "confirming"
    CLOSING = "closing"
    UNKNOWN = "unknown"
    UNDERPAID = "underpaid"
    PAID = "paid"
    OVERPAID = "overpaid"
    REFUNDED = "refunded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CLOSED = "closed"
    MONEY_COMES_BACK = "money_comes_back"
    MONEY_CAME_BACK = "money_came_back"
    PAID_TWICE = "paid_twice"


class ResultView(Struct, frozen=True, kw_only=True):
    """A payment in progress without a step for the payer, or its end.

    `retry`: to the checkout, where another attempt is possible. `cancel`: while not final.
    """

    payment: PaymentHead
    outcome: Outcome
    retry: str | None = None
    cancel: Form | None = None


class CardView(Struct, frozen=True, kw_only=True):
    """The way to the form of a card vault. `back`: to the checkout."""

    url: str
    host: str
    back: str


class ProblemView(Struct, frozen=True, kw_only=True):
    """In place of a page: what went wrong, and what helps. `request_id`: for the support.

    `waits`: nothing is wrong so far; the page is loaded again by itself.
    """

    title: str
    message: str
    waits: bool = False
    retry: str | None = None
    request_id: str | None = None


View: TypeAlias = CheckoutView | ChallengeView | ActionView | ResultView | CardView | ProblemView
