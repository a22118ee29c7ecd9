"""From a consultation or a payment to the view of a sale, and the other pages of scan-to-pay."""

from __future__ import annotations

from cashier.consultation.answer import Blockage, Consultation, OrderSummary
from cashier.domain.money import DIGITS, Currency, Money
from cashier.domain.order import Blocked
from cashier.domain.pay_method import Availability, PayMethod
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL
from cashier.domain.wording import PayerProblem
from cashier.pages import sales
from cashier.pages.forms import form_fields
from cashier.pages.page_call import public_base
from cashier.pages.payment_view import OUTCOMES, action_step
from cashier.pages.qr import QrCodes
from cashier.pages.surroundings import page_view, refresh_s, short_title
from cashier.pages.till_call import TillCall
from cashier.pages.till_views import AmountForm, CodeButton, PrintedCodeView, SaleView
from cashier.pages.views import Form, Notice, NoticeTone, Outcome, PageView, QrView, State
from cashier.pages.writing import Writing

_STATES = {
    Availability.AVAILABLE: State.AVAILABLE,
    Availability.UNDETERMINED: State.CHECKING,
    Availability.UNAVAILABLE: State.UNAVAILABLE,
}
# What an order says that no payment of this browser is about.
_ENDS = {Blocked.ORDER_PAID: Outcome.PAID, Blocked.ORDER_IN_PROGRESS: Outcome.PROCESSING}
# Notices that are our own texts. Others are problems of the service.
_OWN_NOTICES = ("scan_wrong", "not_offered")
_PROBLEMS = {problem.value: problem for problem in PayerProblem}
_WAIT_S = 5


def till_page(call: TillCall) -> PageView:
    return page_view(call, call.addresses.till)


def amount_form(
    writing: Writing,
    action: str,
    fields: tuple[tuple[str, str], ...],
    currency: Currency,
    amount: str = "",
    note: str = "",
    fault: str | None = None,
) -> AmountForm:
    """`fault`: what was wrong with the last one."""
    return AmountForm(
        form=Form(action, fields),
        currency=currency,
        example=example(currency, writing),
        amount=amount,
        note=note,
        notice=None if fault is None else Notice(NoticeTone.ERROR, fault, field="amount"),
    )


def example(currency: Currency, writing: Writing) -> str:
    """A number as this language writes it, without the currency's sign."""
    digits = DIGITS[currency]
    return f"12{writing.formats.decimal}{'50'.ljust(digits, '0')[:digits]}" if digits else "1250"


def offer_page(
    call: TillCall, consultation: Consultation, ended: Payment | None, notice: str
) -> tuple[PageView, SaleView]:
    """What can be done for the order. `ended`: the payment before, which paid nothing."""
    attempt = "" if ended is None else ended.payment_id
    codes = tuple(_code_button(call, method, attempt) for method in sales.shown(consultation))
    takers = sales.scanned(consultation)
    can_scan = any(method.availability is Availability.AVAILABLE for method in takers)
    checking = any(method.availability is Availability.UNDETERMINED for method in (*takers, *sales.shown(consultation)))
    view = SaleView(
        amount=call.writing.amount(consultation.order.amount),
        title=short_title(consultation.order.title),
        notice=_notice(call, ended, notice) or (None if can_scan else _closed(call, takers)),
        scan=Form(call.addresses.scan, form_fields(call.session, attempt)) if can_scan else None,
        codes=codes,
        next_sale=call.addresses.till,
        checking=checking,
    )
    # A reload would lose what the cashier is typing.
    return page_view(call, call.page, refresh_after_s=_WAIT_S if checking and not can_scan else None), view


def final_page(call: TillCall, blocked: Blockage, order: OrderSummary) -> tuple[PageView, SaleView]:
    """An order that cannot be paid now. What is paid is said by the acquirer."""
    outcome = _ENDS.get(blocked.code, Outcome.CLOSED)
    under_way = outcome is Outcome.PROCESSING
    view = SaleView(
        amount=call.writing.amount(order.amount),
        title=short_title(order.title) or None,
        outcome=outcome,
        message=blocked.message,
        next_sale=call.addresses.till,
    )
    return page_view(call, call.page, refresh_after_s=_WAIT_S if under_way else None), view


def refused_page(call: TillCall, order: OrderSummary, asked: Money) -> tuple[PageView, SaleView]:
    """An order of another amount than the cashier entered. Whatever its state is, it is not this
    sale's."""
    view = SaleView(
        amount=call.writing.amount(order.amount),
        notice=Notice(NoticeTone.ERROR, sales.amount_fault(call, order.amount, asked)),
        next_sale=call.addresses.till,
    )
    return page_view(call, call.page), view


async def payment_page(call: TillCall, payment: Payment, qr_codes: QrCodes) -> tuple[PageView, SaleView]:
    """A payment that is under way or paid."""
    final = payment.status in FINAL
    step = None if final else await action_step(payment.next_action, call.writing, qr_codes)
    qr = step if isinstance(step, QrView) else None
    fields, outcome = form_fields(call.session, payment.payment_id), OUTCOMES[payment.message.code]
    view = SaleView(
        amount=call.writing.amount(payment.amount),
        qr=qr,
        # A payer may show a code instead of scanning ours.
        scan=Form(call.addresses.scan, fields) if qr is not None else None,
        outcome=None if qr is not None else outcome,
        message=None if qr is not None or outcome is Outcome.USER_PAYING else payment.message.text,
        cancel=None if final else Form(call.addresses.cancel, fields),
        next_sale=call.addresses.till if final else None,
    )
    page = page_view(
        call,
        call.page,
        refresh_after_s=None if final else refresh_s(payment),
        live=None if final else call.addresses.events,
    )
    return page, view


async def printed_code_view(call: TillCall, name: str, qr_codes: QrCodes) -> PrintedCodeView:
    url = f"{public_base(call.settings, call.request.scope)}/cashier-code/{call.till.merchant_id}"
    svg = await qr_codes.svg(url)
    if svg is None:
        raise ValueError("the address of a page is longer than a code")
    return PrintedCodeView(merchant=name, svg=svg, url=url, back=call.addresses.till)


def _code_button(call: TillCall, method: PayMethod, attempt: str) -> CodeButton:
    return CodeButton(
        form=Form(call.addresses.code, (*form_fields(call.session, attempt), ("method", method.method_id))),
        title=method.title,
        icon=method.icon,
        state=_STATES[method.availability],
        reason=method.reason.message if method.reason else None,
    )


def _notice(call: TillCall, ended: Payment | None, notice: str) -> Notice | None:
    """What has just been refused, else how the payment before ended. An address chooses among our
    words only."""
    labels = call.writing.labels
    if notice in _OWN_NOTICES:
        return Notice(NoticeTone.ERROR, str(getattr(labels, notice)), field="code")
    problem = _PROBLEMS.get(notice)
    if problem is not None:
        return Notice(NoticeTone.ERROR, call.writing.problem(problem).message)
    return None if ended is None else Notice(NoticeTone.WARNING, ended.message.text)


def _closed(call: TillCall, takers: list[PayMethod]) -> Notice | None:
    """Why no payer's code is taken, if there is something to say."""
    reason = next((method.reason for method in takers if method.reason is not None), None)
    return None if reason is None else Notice(NoticeTone.INFO, reason.message)
