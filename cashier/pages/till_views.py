"""Views of scan-to-pay, as in `views`: a till, its sales, and the codes of merchants."""

from __future__ import annotations

from markupsafe import Markup
from msgspec import Struct

from cashier.pages.views import Form, Link, Notice, Outcome, QrView, State


class AmountForm(Struct, frozen=True, kw_only=True):
    """A form in which an amount is entered. `amount`, `note`: as they were entered.

    `example`: an amount as this language writes it.
    """

    form: Form
    currency: str
    example: str
    amount: str = ""
    note: str = ""
    notice: Notice | None = None


class TillView(Struct, frozen=True, kw_only=True):
    """`code`: to the printed code of the merchant; None if it has none."""

    entry: AmountForm
    code: Link | None = None


class CodeButton(Struct, frozen=True, kw_only=True):
    """Shows a code of this provider."""

    form: Form
    title: str
    icon: str
    state: State = State.AVAILABLE
    reason: str | None = None


class SaleView(Struct, frozen=True, kw_only=True):
    """One sale: what can be done, what the payer scans, or how it stands.

    `scan`: the field for the payer's code. `codes`: of which providers a code can be shown. `qr`:
    the one that is shown now. `outcome`: of the payment; None before it and while its code is
    shown. `message`: the core's, unless it speaks to the payer. `cancel`: ends the payment.
    `next_sale`: None while a payment is under way.
    """

    amount: str
    title: str | None = None
    notice: Notice | None = None
    scan: Form | None = None
    codes: tuple[CodeButton, ...] = ()
    qr: QrView | None = None
    outcome: Outcome | None = None
    message: str | None = None
    cancel: Form | None = None
    next_sale: str | None = None
    checking: bool = False


class MerchantCodeView(Struct, frozen=True, kw_only=True):
    """What a payer sees who has scanned the printed code of a merchant."""

    merchant: str
    entry: AmountForm


class PrintedCodeView(Struct, frozen=True, kw_only=True):
    """The code of a merchant, to be printed."""

    merchant: str
    svg: Markup
    url: str
    back: str
