"""One request of a browser for the pages of an order: its addresses, its session, its language."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace
from starlette.requests import Request
from starlette.types import Scope

from cashier.core import Cashier
from cashier.domain.locale_match import accepted_languages
from cashier.domain.order import Id, Locale
from cashier.domain.payment_request import Device
from cashier.domain.wording import PayerProblem
from cashier.pages.client_address import client_address
from cashier.pages.cookies import PageCookies
from cashier.pages.writing import Writing
from cashier.settings.pages import PagesSettings
from cashier.tokens.jws import TokenRefused
from cashier.tokens.page_session import SessionClaims
from cashier.web.auth import is_loopback
from cashier.web.request_headers import read_request_id, read_traceparent

# How long a link may be opened.
LINK_S = 600
_MAX_USER_AGENT = 1024


class PageRefused(Exception):
    """Ends a request with a page that says why.

    `retry`: the address that may help. `retry_after_s`: it is loaded again by itself.
    """

    def __init__(
        self, status: int, problem: PayerProblem, *, retry: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem
        self.retry = retry
        self.retry_after_s = retry_after_s


class UnknownAddress(Exception):
    """No public address is configured, and the request came by a name that proves nothing."""


class PageAddresses(msgspec.Struct, frozen=True):
    """The addresses of one order's pages. `prefix`: the path of the mount point, for browsers."""

    prefix: str
    order_id: str

    @property
    def page(self) -> str:
        return f"{self.prefix}/cashier/{self.order_id}"

    @property
    def pay(self) -> str:
        return f"{self.page}/pay"

    @property
    def payment(self) -> str:
        return f"{self.page}/payment"

    @property
    def challenge(self) -> str:
        return f"{self.page}/challenge"

    @property
    def resend(self) -> str:
        return f"{self.challenge}/resend"

    @property
    def cancel(self) -> str:
        return f"{self.page}/cancel"

    @property
    def replace(self) -> str:
        return f"{self.page}/replace"

    @property
    def returned(self) -> str:
        return f"{self.page}/return"

    @property
    def events(self) -> str:
        """Updates of the payment."""
        return f"{self.page}/events"

    @property
    def methods(self) -> str:
        """Updates of the checkout."""
        return f"{self.page}/methods"


def public_base(settings: PagesSettings, scope: Scope) -> str:
    """Scheme, host and path by which browsers reach the service, without a slash at the end.

    Without a configured one that of the request, if it is a loopback address: a name of `Host` may
    be anyone's. Raises `UnknownAddress`.
    """
    if settings.public_url:
        return settings.public_url
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    base = f"{scope['scheme']}://{hosts[0] if len(hosts) == 1 else ''}"
    try:
        name = urlsplit(base).hostname or ""
        known = is_loopback(name) and urlsplit(base).netloc == hosts[0]
    except (ValueError, IndexError):
        known = False
    if not known:
        raise UnknownAddress
    return f"{base}{scope.get('root_path', '')}"


class PageCall:
    """`now`: the time of the request. Raises `PageRefused` for a path that names no order."""

    def __init__(self, cashier: Cashier, request: Request, now: datetime) -> None:
        self.cashier = cashier
        self.request = request
        self.now = now
        self.settings = cashier.config.settings.pages
        self.headers: dict[bytes, bytes] = dict(request.scope["headers"])
        self.request_id = read_request_id(self.headers)
        self.traceparent = read_traceparent(self.headers)
        try:
            order_id = msgspec.convert(request.path_params["order_id"], Id)
        except msgspec.ValidationError:
            raise PageRefused(404, PayerProblem.ORDER_UNKNOWN) from None
        public_url = urlsplit(self.settings.public_url)
        prefix = public_url.path if self.settings.public_url else request.scope.get("root_path", "")
        self.addresses = PageAddresses(prefix, order_id)
        self.cookies = PageCookies(self.addresses.page, secure=public_url.scheme == "https")
        self.session_or_none = self._read_session()
        # The language where there is no session; None: the browser's.
        self.other_locale: str | None = None

    def __repr__(self) -> str:
        return f"<PageCall {self.request_id}>"

    @property
    def order_id(self) -> str:
        return self.addresses.order_id

    @property
    def session(self) -> SessionClaims:
        """Raises `PageRefused`: the payer has to come from the shop again."""
        if self.session_or_none is None:
            raise PageRefused(403, PayerProblem.TOKEN_EXPIRED)
        return self.session_or_none

    @property
    def locale(self) -> str:
        """Of the service's texts: the session's, else the browser's."""
        catalog = self.cashier.catalog
        wanted = self.session_or_none.locale if self.session_or_none is not None else self.other_locale
        if wanted is not None:
            return catalog.locale(wanted)
        return catalog.first_known(accepted_languages(self.headers.get(b"accept-language", b"").decode("latin-1")))

    @property
    def writing(self) -> Writing:
        session = self.session_or_none
        country = session.country if session is not None else None
        return Writing(self.cashier.catalog, self.locale, self.now, country or "")

    @property
    def device(self) -> Device:
        peer = self.request.client.host if self.request.client is not None else None
        user_agent = self.headers.get(b"user-agent", b"").decode("latin-1")[:_MAX_USER_AGENT]
        ip = client_address(peer, self.headers, self.settings.proxies)
        return Device(ip=ip, user_agent=user_agent or None)

    @property
    def query(self) -> list[tuple[str, str]]:
        return self.request.query_params.multi_items()

    def wanted_locale(self) -> Locale | None:
        """The language that the payer has just chosen."""
        wanted = self.request.query_params.get("locale")
        return wanted if wanted is not None and wanted in self.cashier.catalog.texts else None

    def sign_session(self, session: SessionClaims) -> str:
        """Each ends at the same time: using a page prolongs nothing."""
        ends_at = session.opened_at + LINK_S + self.settings.session_s
        return self.cashier.tokens.pages.sign_session(session, ends_at)

    def held_payment(self) -> tuple[str, str] | None:
        """Id and token of the last payment of this browser, if it is of this session's payer."""
        held, session, payments = self.cookies.payment(self.request.cookies), self.session, self.cashier.payments
        if held is None or payments is None:
            return None
        try:
            chosen = payments.choice_of(*held)
        except TokenRefused:
            return None
        own = (session.order_id, session.merchant_id, session.user_id)
        return held if (chosen.order_id, chosen.merchant_id, chosen.user_id) == own else None

    def _read_session(self) -> SessionClaims | None:
        token = self.cookies.session(self.request.cookies)
        if token is None:
            return None
        try:
            return self.cashier.tokens.pages.read_session(token, self.order_id, self.now.timestamp())
        except TokenRefused:
            return None


def with_locale(session: SessionClaims, locale: str) -> SessionClaims:
    return replace(session, locale=locale)
