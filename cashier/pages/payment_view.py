"""From a payment to the view of its challenge, its action or its result."""

from __future__ import annotations

import math
import re
from datetime import datetime
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from cashier.domain.local_format import plain_number
from cashier.domain.next_action import Action, DisplayCode, DisplayQr, DisplayVa, Redirect, Sdk
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_resource import Challenge, FoundPayment, Payment
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.pages.qr import QrCodes
from cashier.pages.security_headers import OriginRefused, origin_of
from cashier.pages.views import (
    AccountView,
    ActionView,
    AppView,
    ChallengeType,
    ChallengeView,
    CodeView,
    Deadline,
    Form,
    Notice,
    NoticeTone,
    Outcome,
    PaymentHead,
    QrView,
    RedirectView,
    ResultView,
    Step,
)
from cashier.pages.writing import Writing

# A code that a browser could open: a page, or an app by its own scheme.
_PAGE = re.compile(r"https://[!-~]{1,2040}")
# An app may also be opened by an address of the web.
_WEB = re.compile(r"https?:", re.IGNORECASE)

OUTCOMES: dict[MessageCode, Outcome] = {
    MessageCode.CHALLENGE: Outcome.PROCESSING,
    MessageCode.CHALLENGE_WRONG: Outcome.PROCESSING,
    MessageCode.ACTION_REQUIRED: Outcome.PROCESSING,
    MessageCode.PROCESSING: Outcome.PROCESSING,
    MessageCode.USER_PAYING: Outcome.USER_PAYING,
    MessageCode.UNDERPAID: Outcome.UNDERPAID,
    MessageCode.UNDERPAID_RETURNED: Outcome.UNDERPAID,
    MessageCode.OUTCOME_UNKNOWN: Outcome.UNKNOWN,
    MessageCode.CONFIRMING: Outcome.CONFIRMING,
    MessageCode.CLOSING: Outcome.CLOSING,
    MessageCode.SUCCEEDED: Outcome.PAID,
    MessageCode.SUCCEEDED_REFUNDED: Outcome.REFUNDED,
    MessageCode.OVERPAID: Outcome.OVERPAID,
    MessageCode.FAILED: Outcome.FAILED,
    MessageCode.CHALLENGE_FAILED: Outcome.FAILED,
    MessageCode.BALANCE_INSUFFICIENT: Outcome.FAILED,
    MessageCode.INSTRUMENT_DECLINED: Outcome.FAILED,
    MessageCode.CHANNEL_UNAVAILABLE: Outcome.FAILED,
    MessageCode.AUTH_CODE_USED: Outcome.FAILED,
    MessageCode.PROMOTION_GONE: Outcome.FAILED,
    MessageCode.DECLINED: Outcome.FAILED,
    MessageCode.ORDER_PAID: Outcome.CLOSED,
    MessageCode.CLOSED: Outcome.CLOSED,
    MessageCode.CLOSED_UNPAID: Outcome.CLOSED,
    MessageCode.CANCELLED: Outcome.CANCELLED,
    MessageCode.CLOSED_RECEIVED: Outcome.MONEY_COMES_BACK,
    MessageCode.CLOSED_REFUNDING: Outcome.MONEY_COMES_BACK,
    MessageCode.CLOSED_REFUNDED: Outcome.MONEY_CAME_BACK,
    MessageCode.PAID_TWICE_REFUNDING: Outcome.PAID_TWICE,
}
# After these the order itself may still be paid.
_RETRIED = frozenset({Outcome.FAILED, Outcome.CANCELLED})
_RETRIED_CODES = frozenset({MessageCode.CLOSED_UNPAID})
# Answered by what the payer types.
_TYPED = frozenset({ChallengeType.SMS_OTP, ChallengeType.PASSWORD})
# The answer after a bank's page: the risk service knows from the bank.
CONFIRMED = "confirmed"
_WARNINGS = frozenset({MessageCode.UNDERPAID, MessageCode.UNDERPAID_RETURNED})
# Said by the page of the step, or by a notice above it.
_SAID = _WARNINGS | {MessageCode.ACTION_REQUIRED}
# Their `render_value` tells more than the page: a telephone number, the name of a bank.
_NAMING = frozenset({ChallengeType.SMS_OTP, ChallengeType.THREE_DS})


class PaymentForms(Struct, frozen=True, kw_only=True):
    """What the payer may do, each None where it may not. `retry`: the address of the checkout."""

    answer: Form | None = None
    resend: Form | None = None
    cancel: Form | None = None
    replace: Form | None = None
    paid: Form | None = None
    retry: str | None = None


class ChallengeNotice(Struct, frozen=True):
    """What happened to the challenge just now. `resend_after_s`: None if that is not known."""

    wrong: str | None = None
    resent: bool = False
    resend_after_s: int | None = None


def may_be_retried(payment: Payment | FoundPayment) -> bool:
    """Whether the order may be paid by another attempt after this one, as far as it knows."""
    code = payment.message.code
    return OUTCOMES[code] in _RETRIED or code in _RETRIED_CODES


async def payment_view(
    payment: Payment | FoundPayment,
    kind: Kind,
    writing: Writing,
    forms: PaymentForms,
    qr_codes: QrCodes,
    challenge_notice: ChallengeNotice,
) -> ChallengeView | ActionView | ResultView:
    """`kind`: of its method. A `FoundPayment` is shown as it is, by whoever may see it."""
    head = _head(payment, kind, writing)
    challenge = payment.challenge if isinstance(payment, Payment) else None
    if payment.status is PaymentStatus.CHALLENGE and challenge is not None and forms.answer is not None:
        return _challenge_view(head, challenge, writing, forms, forms.answer, challenge_notice)
    action = None if payment.status in FINAL else payment.next_action
    if isinstance(action, DisplayVa) and action.amount != payment.amount:
        # The payer has not agreed to this sum, and a bank would take it: nothing is offered.
        action = None
    step = await action_step(action, writing, qr_codes)
    if step is not None:
        code = payment.message.code
        warning = code in _WARNINGS
        if code is MessageCode.UNDERPAID and isinstance(step, AccountView):
            # The rest is due, which the notice names.
            step = replace(step, amount=None, amount_digits=None)
        return ActionView(
            payment=replace(head, message="") if code in _SAID else head,
            step=step,
            notice=Notice(NoticeTone.WARNING, payment.message.text) if warning else None,
            paid=forms.paid,
            replace=forms.replace,
            cancel=forms.cancel if forms.replace is None else None,
        )
    return result_view(payment, kind, writing, forms)


def result_view(payment: Payment | FoundPayment, kind: Kind, writing: Writing, forms: PaymentForms) -> ResultView:
    """The state alone, also of a payment that could still be acted on."""
    return ResultView(
        payment=_head(payment, kind, writing),
        outcome=OUTCOMES[payment.message.code],
        retry=forms.retry if may_be_retried(payment) else None,
        cancel=None if payment.status in FINAL else forms.cancel,
    )


def deadline(at: datetime, writing: Writing) -> Deadline:
    return Deadline(at.isoformat(timespec="seconds"), writing.time(at))


def _head(payment: Payment | FoundPayment, kind: Kind, writing: Writing) -> PaymentHead:
    return PaymentHead(
        payment_id=payment.payment_id,
        amount=writing.amount(payment.amount),
        message=payment.message.text,
        method=writing.kind(kind),
        icon=writing.catalog.methods[kind].icon.format(provider="unknown"),
    )


def _challenge_view(
    head: PaymentHead,
    challenge: Challenge,
    writing: Writing,
    forms: PaymentForms,
    answer: Form,
    notice: ChallengeNotice,
) -> ChallengeView:
    page = _page(challenge.render_value)
    kind = ChallengeType(challenge.type)
    if kind in _TYPED:
        form = answer
    elif kind is ChallengeType.THREE_DS and page is not None:
        form = Form(answer.action, (*answer.fields, ("value", CONFIRMED)))
    else:
        # Confirmed in an app, which answers: from here the payer can only look.
        form = forms.paid or answer
    return ChallengeView(
        payment=head,
        type=kind,
        form=form,
        masked=challenge.render_value if kind in _NAMING and page is None else None,
        wrong=notice.wrong,
        deadline=deadline(challenge.expires_at, writing),
        resend=forms.resend if kind is ChallengeType.SMS_OTP else None,
        resend_after_s=notice.resend_after_s or _resend_after_s(challenge, writing.now),
        resent=notice.resent,
        link=page if kind is ChallengeType.THREE_DS else None,
        cancel=forms.cancel,
    )


def _resend_after_s(challenge: Challenge, now: datetime) -> int | None:
    """As the challenge says from its start. None: it may be tried at once."""
    if challenge.resend_at is None:
        return None
    wait_s = math.ceil((challenge.resend_at - now).total_seconds())
    return wait_s if wait_s > 0 else None


async def action_step(action: Action | None, writing: Writing, qr_codes: QrCodes) -> Step | None:
    """None where nothing is shown."""
    match action:
        case Redirect():
            return _redirect(action)
        case DisplayQr():
            return await _qr(action, writing, qr_codes)
        case DisplayCode():
            return CodeView(
                code=action.code,
                institution=action.institution,
                deadline=deadline(action.expires_at, writing),
                barcode=action.barcode,
                instructions=action.instructions_url and _page(action.instructions_url),
            )
        case DisplayVa():
            return AccountView(
                bank=action.bank,
                account_no=action.account_no,
                account_name=action.account_name,
                amount=writing.amount(action.amount),
                amount_digits=plain_number(action.amount),
                deadline=deadline(action.expires_at, writing),
            )
        case Sdk():
            return AppView()
        case _:
            return None


async def _qr(action: DisplayQr, writing: Writing, qr_codes: QrCodes) -> QrView | None:
    """None for what no code holds."""
    svg = await qr_codes.svg(action.data)
    if svg is None:
        return None
    return QrView(svg=svg, deadline=deadline(action.expires_at, writing), link=_page(action.data))


def _redirect(action: Redirect) -> RedirectView | None:
    """None for a URL without an origin that a browser could be sent to: then nothing is offered."""
    if not _has_origin(action.url):
        return None
    fields = None if action.method == "GET" else tuple((action.fields or {}).items())
    host, app = urlsplit(action.url).hostname or "", action.applink
    if app is not None and _WEB.match(app) and not _has_origin(app):
        app = None
    return RedirectView(url=action.url, host=host, fields=fields, applink=app)


def _page(text: str) -> str | None:
    """The address of a page over https; None for any other text."""
    return text if _PAGE.fullmatch(text) and _has_origin(text) else None


def _has_origin(url: str) -> bool:
    try:
        origin_of(url)
    except OriginRefused:
        return False
    return True
