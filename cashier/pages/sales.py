"""Takes the payments of a till's sales: by the payer's code, or by a code that the payer scans.

An idempotency key follows from what is done, so a code that is scanned twice, a double click and a
till that was restarted meet the same payment again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeAlias

from cashier.consultation.answer import Consultation, ConsultError, NotOpen, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.money import Money
from cashier.domain.order import Blocked, ConsultRequest, Product, Terminal
from cashier.domain.order_checks import OWNERSHIP_BLOCKS
from cashier.domain.pay_method import Availability, Kind, PayMethod
from cashier.domain.payment_id import payment_id
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_resource import Payment
from cashier.domain.wording import PayerProblem
from cashier.pages.browser_call import BrowserCall
from cashier.pages.page_call import PageRefused
from cashier.pages.till_call import TillCall
from cashier.payments.errors import AcceptError
from cashier.payments.flow import PaymentFlow
from cashier.tokens.jws import TokenRefused
from cashier.web.payment_problems import refusal_for
from cashier.web.sse import accepts_event_stream

_AUTH_CODE = re.compile(r"[!-~]{6,256}")
# An idempotency key may not look like a card number, so it has no digits.
_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopabcdef")
_KEY_LETTERS = 48
_WAIT_S = 5
_PAYER_PROBLEMS = {problem.value: problem for problem in PayerProblem}


Methods: TypeAlias = Sequence[PayMethod]


class SaleRefused(Exception):
    """Nothing was sent. `notice`: what the page says, a problem or a name of our own texts."""

    def __init__(self, notice: str) -> None:
        super().__init__(notice)
        self.notice = notice


def auth_code(text: str) -> str | None:
    """A payer's code as a scanner or a hand types it; None for what is none."""
    code = "".join(text.split())
    return code if _AUTH_CODE.fullmatch(code) else None


def code_key(call: TillCall, code: str) -> str:
    """A payer's code is used once, so it is one payment of its order."""
    return _key("scan", call.till.merchant_id, call.order_id, code)


def shown_key(call: TillCall, method_id: str, ended: str) -> str:
    """`ended`: the payment before; empty for the first."""
    return _key("show", call.till.merchant_id, call.order_id, method_id, ended)


def entered_key(whose: str, sale: str, *entered: str) -> str:
    """Of an order. `sale`: of the form, so that what is sent twice is sold once."""
    return _key("sale", whose, sale, *entered)


def payment_of(call: TillCall, key: str) -> str:
    return payment_id(call.till.merchant_id, call.order_id, key)


async def order_fault(call: BrowserCall, request: ConsultRequest, asked: Money) -> str | None:
    """Why the order that was created for this sale is none that its payer could pay, in words.

    A service may give an old order, and its payment would look like this sale's. None also if
    nothing can be known now: the page of the sale says that, and compares the amount again.
    """
    try:
        consultation = await call.cashier.consult(request, request_id=call.request_id, traceparent=call.traceparent)
    except ConsultError:
        return None
    if is_of_another_amount(consultation, asked):
        return amount_fault(call, consultation.order.amount, asked)
    blocked = consultation.blocked
    # A form that is sent again leads to its sale.
    return None if blocked is None or blocked.code is Blocked.ORDER_IN_PROGRESS else blocked.message


def amount_fault(call: BrowserCall, amount: Money, asked: Money) -> str:
    write = call.writing.amount
    return str(call.writing.labels.sale_amount_differs).format(amount=write(amount), asked=write(asked))


def consult_request(call: TillCall, order_id: str, asked: Money | None) -> ConsultRequest:
    """`asked`: what the order was created for."""
    return ConsultRequest(
        order_id=order_id,
        merchant_id=call.till.merchant_id,
        product=Product.SCAN,
        terminal=Terminal.POS,
        amount=asked,
        country=call.till.country,
        locale=call.locale,
    )


async def consult(call: TillCall) -> Consultation:
    """Of the order of this page. Raises `PageRefused`."""
    request = consult_request(call, call.order_id, call.asked)
    try:
        return await call.cashier.consult(request, request_id=call.request_id, traceparent=call.traceparent)
    except OrderUnknown:
        raise PageRefused(404, PayerProblem.ORDER_UNKNOWN, retry=call.addresses.till) from None
    except RequiredSourceUnavailable:
        raise _unavailable(call, PayerProblem.REQUIRED_SOURCE_UNAVAILABLE) from None
    except NotOpen:
        raise _unavailable(call, PayerProblem.NOT_READY) from None


def is_of_another_amount(consultation: Consultation, asked: Money) -> bool:
    """Whether the order, which may be paid already, is not the one that was asked for.

    Of another party's order the amount is not known.
    """
    blocked = consultation.blocked
    return not (blocked is not None and blocked.code in OWNERSHIP_BLOCKS) and consultation.order.amount != asked


async def look(call: TillCall, held: tuple[str, str]) -> Payment | None:
    """None for a token that is no longer valid. Raises `PageRefused`."""
    try:
        return await _port(call).look(*held, request_id=call.request_id, traceparent=call.traceparent)
    except TokenRefused:
        return None
    except AcceptError:
        raise _unavailable(call, PayerProblem.STATUS_UNAVAILABLE) from None


async def follow(call: TillCall, held: tuple[str, str]) -> AsyncGenerator[Payment, None]:
    """Each visible change, to a browser that takes events; else the present state. Raises
    `PageRefused`, before the first only."""
    port, request_id, traceparent = _port(call), call.request_id, call.traceparent
    try:
        if accepts_event_stream(call.headers.get(b"accept")):
            async with aclosing(port.follow(*held, request_id=request_id, traceparent=traceparent)) as payments:
                async for payment in payments:
                    yield payment
        else:
            yield await port.look(*held, request_id=request_id, traceparent=traceparent)
    except TokenRefused:
        raise PageRefused(403, PayerProblem.TOKEN_EXPIRED) from None
    except AcceptError:
        raise _unavailable(call, PayerProblem.STATUS_UNAVAILABLE) from None


async def cancel(call: TillCall, held: tuple[str, str]) -> Payment:
    """The present state, which may be paid. Raises `PageRefused`."""
    try:
        return await _port(call).cancel(*held, request_id=call.request_id, traceparent=call.traceparent)
    except (AcceptError, TokenRefused):
        raise _unavailable(call, PayerProblem.STATUS_UNAVAILABLE) from None


async def pay(call: TillCall, methods: Methods, token: str, key: str, code: str | None = None) -> Payment:
    """By the first of `methods` that is available. Raises `SaleRefused` and `PageRefused`.

    `token`: of the consultation. `code`: the payer's.
    """
    method = next((each for each in methods if each.availability is Availability.AVAILABLE), None)
    if method is None or method.amount is None:
        raise SaleRefused("not_offered")
    request = PaymentRequest(
        consult_token=token,
        order_id=call.order_id,
        merchant_id=call.till.merchant_id,
        product=Product.SCAN,
        terminal=Terminal.POS,
        method_id=method.method_id,
        expected_payable=method.amount.payable,
        auth_code=code,
        device=call.device,
        country=call.till.country,
        locale=call.locale,
    )
    try:
        return await _port(call).submit(request, key, request_id=call.request_id, traceparent=call.traceparent)
    except (AcceptError, TokenRefused, OrderUnknown) as error:
        refusal = refusal_for(error)
        problem = None if refusal is None else _PAYER_PROBLEMS.get(refusal.problem.code.value)
        raise SaleRefused((problem or PayerProblem.INTERNAL).value) from None


def scanned(consultation: Consultation) -> list[PayMethod]:
    """What can take a payer's code."""
    return [method for method in consultation.methods if method.kind is Kind.CONSUMER_QR]


def shown(consultation: Consultation) -> list[PayMethod]:
    """What gives a code for the payer to scan."""
    return [method for method in consultation.methods if method.kind is Kind.MERCHANT_QR]


def _port(call: TillCall) -> PaymentFlow:
    payments = call.cashier.payments
    if payments is None or not call.cashier.ready:
        raise _unavailable(call, PayerProblem.NOT_READY)
    return payments


def _unavailable(call: TillCall, problem: PayerProblem) -> PageRefused:
    return PageRefused(503, problem, retry=call.addresses.page, retry_after_s=_WAIT_S)


def _key(*parts: str) -> str:
    whole = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(whole.encode()).hexdigest().translate(_LETTERS)[:_KEY_LETTERS]
