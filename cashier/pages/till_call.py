"""One request of a till's browser: its addresses, its session, and the sale that it is about."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from cashier.core import Cashier
from cashier.domain.money import Money
from cashier.domain.order import Id, Locale, Product, Terminal
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL
from cashier.domain.wording import PayerProblem
from cashier.pages.browser_call import BrowserCall
from cashier.pages.cookies import PageCookies
from cashier.pages.page_call import PageRefused
from cashier.tokens.jws import TokenRefused
from cashier.tokens.page_session import SessionClaims, TillClaims, till_of

_AMOUNT = re.compile(r"(?P<currency>[A-Z]{3}):(?P<value>[0-9]{1,16})")
# A working day. A till that is used gets another one each time.
TILL_S = 86_400
# A browser keeps some 180 cookies of one host, and a till has a sale a minute: that of a sale under
# way lives as long as a code on the screen, that of one that has ended until it is looked at again.
_SALE_S, _ENDED_SALE_S = 7_200, 600


class TillAddresses(Struct, frozen=True):
    """`order_id`: of the sale; None on the till's first page."""

    prefix: str
    merchant_id: str
    terminal_id: str
    order_id: str | None = None

    @property
    def till_name(self) -> str:
        """As its tokens name it."""
        return till_of(self.merchant_id, self.terminal_id)

    @property
    def till(self) -> str:
        return f"{self.prefix}/cashier-till/{self.till_name}"

    @property
    def sales(self) -> str:
        return f"{self.till}/sales"

    @property
    def printed_code(self) -> str:
        return f"{self.till}/code"

    @property
    def page(self) -> str:
        return self.till if self.order_id is None else f"{self.sales}/{self.order_id}"

    @property
    def scan(self) -> str:
        return f"{self.page}/scan"

    @property
    def code(self) -> str:
        return f"{self.page}/code"

    @property
    def cancel(self) -> str:
        return f"{self.page}/cancel"

    @property
    def events(self) -> str:
        return f"{self.page}/events"


class TillCall(BrowserCall):
    """Raises `PageRefused` for a path that names no till, or no order where there must be one."""

    def __init__(self, cashier: Cashier, request: Request, now: datetime) -> None:
        super().__init__(cashier, request, now)
        named = request.path_params
        try:
            ids = [
                msgspec.convert(named[key], Id) for key in ("merchant_id", "terminal_id", "order_id") if key in named
            ]
        except msgspec.ValidationError:
            raise PageRefused(404, PayerProblem.ORDER_UNKNOWN) from None
        self.addresses = TillAddresses(self.prefix, *ids)
        # A till whose browser is closed goes on with its sale.
        self.till_cookies = PageCookies(self.addresses.till, secure=self.encrypted, lasts_s=TILL_S)
        self.cookies = PageCookies(self.addresses.page, secure=self.encrypted, lasts_s=_SALE_S)
        self.till_or_none = self._read_till()

    @property
    def page(self) -> str:
        return self.addresses.page

    @property
    def till(self) -> TillClaims:
        """Raises `PageRefused`: the merchant's back end has to open the till again."""
        if self.till_or_none is None:
            raise PageRefused(403, PayerProblem.TOKEN_EXPIRED)
        return self.till_or_none

    @property
    def session(self) -> SessionClaims:
        """The sale as the session of a walk-in payer. Raises `PageRefused`.

        Without a sale it has no order, and only forms need it.
        """
        till = self.till
        return SessionClaims(
            session_id=till.session_id,
            opened_at=0,
            order_id=self.addresses.order_id or "",
            merchant_id=till.merchant_id,
            product=Product.SCAN,
            terminal=Terminal.POS,
            country=till.country,
            locale=till.locale,
        )

    @property
    def order_id(self) -> str:
        """Of the sale. Only on a page of one."""
        if self.addresses.order_id is None:
            raise LookupError("this page is about no sale")
        return self.addresses.order_id

    @property
    def wanted_by_session(self) -> Locale | None:
        return None if self.till_or_none is None else self.till_or_none.locale

    @property
    def country(self) -> str:
        return (self.till_or_none is not None and self.till_or_none.country) or ""

    @property
    def asked(self) -> Money | None:
        """The amount that was entered for this sale; None in another browser of the till."""
        for text in self.cookies.asked(self.sent_cookies):
            match = _AMOUNT.fullmatch(text)
            if match is not None:
                with contextlib.suppress(msgspec.ValidationError):
                    return msgspec.convert({"currency": match["currency"], "value": int(match["value"])}, Money)
        return None

    def keep_asked(self, response: Response, order_id: str, amount: Money) -> Response:
        """In a cookie of the sale of this order: what its service created is compared with it."""
        page = replace(self.addresses, order_id=order_id).page
        cookies = PageCookies(page, secure=self.encrypted, lasts_s=_SALE_S)
        cookies.set_asked(response, f"{amount.currency}:{amount.value}")
        return response

    def keep_payment(self, response: Response, payment: Payment) -> Response:
        """In a cookie of the sale."""
        lasts_s = _ENDED_SALE_S if payment.status in FINAL else _SALE_S
        cookies = PageCookies(self.page, secure=self.encrypted, lasts_s=lasts_s)
        cookies.set_payment(response, payment.payment_id, payment.payment_token)
        return response

    def sign_till(self, till: TillClaims) -> str:
        return self.cashier.tokens.pages.sign_till(till, int(self.now.timestamp()) + TILL_S)

    def _read_till(self) -> TillClaims | None:
        for token in self.till_cookies.sessions(self.sent_cookies):
            try:
                return self.cashier.tokens.pages.read_till(token, self.addresses.till_name, self.now.timestamp())
            except TokenRefused:
                continue
        return None
