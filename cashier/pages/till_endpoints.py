"""The till: open it, enter an amount, take the payment by either side's code, show how it stands.

A POST answers with 303 to a page that shows what is true now, so that a reload does nothing twice.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime

from msgspec.structs import replace
from starlette.responses import RedirectResponse, Response

from cashier.domain.pan import payment_pan_fields
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL
from cashier.domain.wording import PayerProblem
from cashier.pages import sales
from cashier.pages.amount_entry import parse_amount
from cashier.pages.forms import form_fields, read_form
from cashier.pages.order_creation import OrderNotCreated, Orders, Sale
from cashier.pages.page_call import PageRefused, UnknownAddress
from cashier.pages.page_responses import PageResponses
from cashier.pages.page_updates import PageUpdates, Update, another_page
from cashier.pages.payment_view import may_be_retried
from cashier.pages.qr import QrCodes
from cashier.pages.sale_view import (
    amount_form,
    final_page,
    offer_page,
    payment_page,
    printed_code_view,
    refused_page,
    till_page,
)
from cashier.pages.sales import SaleRefused
from cashier.pages.surroundings import page_view
from cashier.pages.till_call import TillCall
from cashier.pages.till_views import TillView
from cashier.pages.views import Link
from cashier.telemetry.trace_context import caller_headers
from cashier.tokens.jws import TokenRefused

_POLL_MS = 2_000
# A stream that ended before the payment did goes on.
_RETRY_MS = 500


class TillEndpoints:
    """`clock`: the time of day."""

    def __init__(
        self, responses: PageResponses, orders: Orders, qr_codes: QrCodes, clock: Callable[[], datetime]
    ) -> None:
        self._responses = responses
        self._updates = PageUpdates(responses.rendering)
        self._clock = clock
        self._orders = orders
        self._qr_codes = qr_codes

    # The till

    async def show(self, call: TillCall) -> Response:
        """GET: open a link, or show the field for an amount."""
        token = call.request.query_params.get("token")
        if token is not None:
            return self._open(call, token)
        return self._in_language(call, call.page) or self._till(call)

    async def sell(self, call: TillCall) -> Response:
        """POST: have the order of an amount created."""
        form, till = await read_form(call), call.till
        entered, note = form.get("amount") or "", (form.get("note") or "").strip()[:64]
        if payment_pan_fields({"note": note}):
            note = ""  # a card number in the wrong field goes nowhere
        amount = parse_amount(entered, till.currency, call.writing.formats)
        if amount is None:
            return self._till(call, entered, note, 422, str(call.writing.labels.amount_wrong))
        sale = Sale(merchant_id=till.merchant_id, terminal_id=till.terminal_id, amount=amount, note=note or None)
        key = sales.entered_key(till.till, form.attempt, str(amount), note)
        try:
            headers = caller_headers(call.request_id, call.traceparent)
            order = await self._orders.create(call.settings.order_url, sale, key, headers)
        except OrderNotCreated:
            return self._till(call, entered, note, 503, str(call.writing.labels.order_failed))
        fault = await sales.order_fault(call, sales.consult_request(call, order.order_id, amount), amount)
        if fault is not None:
            return self._till(call, entered, note, 409, fault)
        response = RedirectResponse(replace(call.addresses, order_id=order.order_id).page, 303)
        return call.keep_asked(response, order.order_id, amount)

    async def printed_code(self, call: TillCall) -> Response:
        """GET: the merchant's code, to be printed."""
        till = call.till
        turned = self._in_language(call, call.addresses.printed_code)
        if turned is not None:
            return turned
        code = call.settings.codes.get(till.merchant_id)
        if code is None:
            raise PageRefused(404, PayerProblem.ORDER_UNKNOWN, retry=call.addresses.till)
        try:
            view = await printed_code_view(call, code.name, self._qr_codes)
        except UnknownAddress:
            raise PageRefused(421, PayerProblem.INVALID, retry=call.addresses.till) from None
        return self._responses.render(page_view(call, call.addresses.printed_code), view)

    # A sale

    async def show_sale(self, call: TillCall) -> Response:
        """GET: the payment of this sale, else what can be done."""
        turned = self._in_language(call, call.page)
        if turned is not None:
            return turned
        held = call.held_payment()
        payment = None if held is None else await sales.look(call, held)
        if payment is None or may_be_retried(payment):
            return await self._offer(call, payment)
        page, view = await payment_page(call, payment, self._qr_codes)
        return call.keep_payment(self._responses.render(page, view), payment)

    async def scan(self, call: TillCall) -> Response:
        """POST: charge the code that the payer shows."""
        form = await read_form(call)
        code = sales.auth_code(form.get("code") or "")
        if code is None:
            return self._go(call, "scan_wrong")
        key = sales.code_key(call, code)
        ready = await self._ready(call, form.attempt, sales.payment_of(call, key))
        if ready is not None:
            return ready
        consultation = await sales.consult(call)
        return await self._pay(call, sales.scanned(consultation), consultation.consult_token, key, code)

    async def show_code(self, call: TillCall) -> Response:
        """POST: show a code of this provider for the payer to scan."""
        form = await read_form(call)
        method_id = form.get("method") or ""
        key = sales.shown_key(call, method_id, form.attempt)
        ready = await self._ready(call, form.attempt, sales.payment_of(call, key))
        if ready is not None:
            return ready
        consultation = await sales.consult(call)
        named = [method for method in sales.shown(consultation) if method.method_id == method_id]
        return await self._pay(call, named, consultation.consult_token, key)

    async def cancel(self, call: TillCall) -> Response:
        """POST: end the payment of this sale, unless it is paid."""
        form, held = await read_form(call), call.held_payment()
        if held is None or held[0] != form.attempt:
            return self._go(call)
        return call.keep_payment(self._go(call), await sales.cancel(call, held))

    async def go_to_page(self, call: TillCall) -> Response:
        """GET: the address of a form, which stays in a browser where it was refused."""
        return self._go(call)

    async def events(self, call: TillCall) -> Response:
        """GET: the payment of this sale, as it changes."""
        return await self._updates.respond(call, self._payment_pages(call))

    # Parts

    async def _payment_pages(self, call: TillCall) -> AsyncGenerator[Update, None]:
        held = call.held_payment()
        if held is None:
            raise PageRefused(403, PayerProblem.TOKEN_EXPIRED)
        async with aclosing(sales.follow(call, held)) as payments:
            async for payment in payments:
                call.now = self._clock()
                if may_be_retried(payment):
                    # What can be done then is another consultation.
                    yield another_page(call)
                    return
                page, view = await payment_page(call, payment, self._qr_codes)
                final = payment.status in FINAL
                poll_after_ms = None if final else payment.poll_after_ms or _POLL_MS
                retry_ms = None if final else _RETRY_MS
                yield await self._updates.update(page, view, poll_after_ms=poll_after_ms, retry_ms=retry_ms)

    def _open(self, call: TillCall, token: str) -> Response:
        pages = call.cashier.tokens.pages
        try:
            till = pages.read_till_link(token, call.addresses.till_name, call.now.timestamp())
        except TokenRefused:
            if call.till_or_none is None:
                raise PageRefused(403, PayerProblem.TOKEN_EXPIRED) from None
            till = call.till_or_none
        response = RedirectResponse(call.addresses.till, 303)
        call.till_cookies.set_session(response, call.sign_till(till))
        return response

    def _in_language(self, call: TillCall, address: str) -> Response | None:
        locale = call.wanted_locale()
        if locale is None:
            return None
        response = RedirectResponse(address, 303)
        call.till_cookies.set_session(response, call.sign_till(replace(call.till, locale=locale)))
        return response

    def _till(
        self, call: TillCall, amount: str = "", note: str = "", status: int = 200, fault: str | None = None
    ) -> Response:
        """Each form is a sale of its own, however often it is sent."""
        fields = form_fields(call.session, secrets.token_urlsafe(12))
        entry = amount_form(call.writing, call.addresses.sales, fields, call.till.currency, amount, note, fault)
        code = call.settings.codes.get(call.till.merchant_id)
        link = Link(call.writing.labels.printed_code, call.addresses.printed_code) if code is not None else None
        response = self._responses.render(till_page(call), TillView(entry=entry, code=link), status)
        # A till in use stays open.
        call.till_cookies.set_session(response, call.sign_till(call.till))
        return response

    async def _ready(self, call: TillCall, seen: str, wanted: str) -> Response | None:
        """Make room for the payment `wanted`; a response if there is nothing to pay any more.

        `seen`: the payment that the cashier saw; another one is shown first.
        """
        held = call.held_payment()
        held_id = "" if held is None else held[0]
        if held is None or held_id == wanted or held_id != seen:
            return None if held_id == seen else self._go(call)
        payment = await sales.look(call, held)
        if payment is not None and payment.status not in FINAL:
            payment = await sales.cancel(call, held)
        if payment is None or may_be_retried(payment):
            return None
        return call.keep_payment(self._go(call), payment)

    async def _pay(
        self, call: TillCall, methods: sales.Methods, token: str, key: str, code: str | None = None
    ) -> Response:
        try:
            payment = await sales.pay(call, methods, token, key, code)
        except SaleRefused as refused:
            return self._go(call, refused.notice)
        return call.keep_payment(self._go(call), payment)

    async def _offer(self, call: TillCall, ended: Payment | None) -> Response:
        consultation = await sales.consult(call)
        notice, asked = call.request.query_params.get("notice", ""), call.asked
        if asked is not None and sales.is_of_another_amount(consultation, asked):
            page, view = refused_page(call, consultation.order, asked)
        elif consultation.blocked is None:
            page, view = offer_page(call, consultation, ended, notice)
        else:
            page, view = final_page(call, consultation.blocked, consultation.order)
        return self._responses.render(page, view)

    def _go(self, call: TillCall, notice: str | None = None) -> Response:
        """To the page of the sale."""
        return RedirectResponse(call.page if notice is None else f"{call.page}?notice={notice}", 303)
