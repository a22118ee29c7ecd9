"""The printed code of a merchant: a payer enters an amount, and the page of its order follows.

Everybody may: the address is printed. So orders are bounded, per address of a payer and per
merchant, in each worker.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from cashier.core import Cashier
from cashier.domain.money import Currency
from cashier.domain.order import ConsultRequest, Id, Locale, Product, Terminal
from cashier.domain.page_session import PageSession, SessionRequest
from cashier.domain.wording import PayerProblem
from cashier.pages import sales
from cashier.pages.amount_entry import parse_amount
from cashier.pages.browser_call import BrowserCall
from cashier.pages.cookies import PageCookies
from cashier.pages.forms import read_fields
from cashier.pages.order_creation import OrderNotCreated, Orders, Sale
from cashier.pages.page_call import PageRefused
from cashier.pages.page_responses import PageResponses
from cashier.pages.sale_view import amount_form
from cashier.pages.surroundings import page_view
from cashier.pages.till_views import MerchantCodeView
from cashier.settings.pages import CodeSettings
from cashier.telemetry.trace_context import caller_headers
from cashier.tokens.page_session import SessionClaims
from cashier.web.problem import RequestRefused
from cashier.web.rate_limit import RateLimit

OpenSession = Callable[[SessionRequest, Scope], PageSession]
# Orders of one payer's address, and of one merchant, per minute.
_MOST_PER_ADDRESS, _MOST_PER_MERCHANT = 6, 240
_WINDOW_S = 60.0
_SALE_NAME = "sale"


class CodeCall(BrowserCall):
    """Raises `PageRefused` for a merchant without a code. There is no session before an order."""

    def __init__(self, cashier: Cashier, request: Request, now: datetime) -> None:
        super().__init__(cashier, request, now)
        try:
            self.merchant_id = msgspec.convert(request.path_params["merchant_id"], Id)
        except msgspec.ValidationError:
            raise PageRefused(404, PayerProblem.ORDER_UNKNOWN) from None
        code = self.settings.codes.get(self.merchant_id)
        if code is None:
            raise PageRefused(404, PayerProblem.ORDER_UNKNOWN)
        self.code: CodeSettings = code
        self.currency = msgspec.convert(code.currency, Currency)
        self.cookies = PageCookies(self.page, secure=self.encrypted)

    @property
    def page(self) -> str:
        return f"{self.prefix}/cashier-code/{self.merchant_id}"

    @property
    def session(self) -> SessionClaims:
        raise PageRefused(403, PayerProblem.TOKEN_EXPIRED, retry=self.page)

    @property
    def wanted_by_session(self) -> Locale | None:
        return self.wanted_locale()

    @property
    def country(self) -> str:
        return ""


class CodeEndpoints:
    """`open_session`: gives the link of an order's page. `now_s`: a monotonic clock."""

    def __init__(
        self, responses: PageResponses, orders: Orders, open_session: OpenSession, now_s: Callable[[], float]
    ) -> None:
        self._responses = responses
        self._orders = orders
        self._open_session = open_session
        self._by_address = RateLimit(_MOST_PER_ADDRESS, _WINDOW_S, now_s)
        self._by_merchant = RateLimit(_MOST_PER_MERCHANT, _WINDOW_S, now_s)

    async def show(self, call: CodeCall) -> Response:
        """GET: the field for the amount."""
        return self._page(call)

    async def order(self, call: CodeCall) -> Response:
        """POST: have the order created, and go to its page."""
        form = await read_fields(call)
        entered, sale_id = form.get("amount") or "", form.get(_SALE_NAME) or ""
        amount = parse_amount(entered, call.currency, call.writing.formats)
        if amount is None:
            return self._page(call, entered, 422, str(call.writing.labels.amount_wrong))
        # The merchant's bound is not used up by what one address sends too much of.
        if not (self._by_address.admits(_network_of(call.device.ip)) and self._by_merchant.admits(call.merchant_id)):
            raise PageRefused(429, PayerProblem.OVERLOADED, retry=call.page)
        key = sales.entered_key(call.merchant_id, sale_id, str(amount))
        sale = Sale(merchant_id=call.merchant_id, amount=amount)
        try:
            order = await self._orders.create(
                call.settings.order_url, sale, key, caller_headers(call.request_id, call.traceparent)
            )
        except OrderNotCreated:
            return self._page(call, entered, 503, str(call.writing.labels.order_failed))
        wanted = SessionRequest(
            order_id=order.order_id,
            merchant_id=call.merchant_id,
            product=Product.SCAN,
            terminal=Terminal.H5,
            amount=amount,
            locale=call.wanted_locale(),
        )
        try:
            link = self._open_session(wanted, call.request.scope)
        except RequestRefused:
            # The request came by a name that is not ours.
            raise PageRefused(421, PayerProblem.INVALID, retry=call.page) from None
        fault = await sales.order_fault(call, _consult_request(call, wanted), amount)
        return RedirectResponse(link.url, 303) if fault is None else self._page(call, entered, 409, fault)

    def _page(self, call: CodeCall, amount: str = "", status: int = 200, fault: str | None = None) -> Response:
        wanted = call.wanted_locale()
        here = call.page if wanted is None else f"{call.page}?locale={wanted}"
        fields = ((_SALE_NAME, secrets.token_urlsafe(12)),)
        entry = amount_form(call.writing, here, fields, call.currency, amount, fault=fault)
        view = MerchantCodeView(merchant=call.code.name, entry=entry)
        return self._responses.render(page_view(call, call.page), view, status)


def _consult_request(call: CodeCall, wanted: SessionRequest) -> ConsultRequest:
    return ConsultRequest(
        order_id=wanted.order_id,
        merchant_id=wanted.merchant_id,
        product=wanted.product,
        terminal=wanted.terminal,
        amount=wanted.amount,
        locale=call.locale,
    )


def _network_of(address: str | None) -> str:
    """One subscriber has a whole network of IPv6 addresses."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))
