"""One request of a browser for the pages of an order: its addresses and its session."""

from __future__ import annotations

import re
from datetime import datetime

import msgspec
from msgspec.structs import replace
from starlette.requests import Request
from starlette.types import Scope

from cashier.core import Cashier
from cashier.domain.order import Id, Locale
from cashier.domain.wording import PayerProblem
from cashier.pages.browser_call import BrowserCall
from cashier.pages.cookies import PageCookies
from cashier.settings.pages import PagesSettings
from cashier.tokens.jws import TokenRefused
from cashier.tokens.page_session import SessionClaims
from cashier.web.application import ADMITS_PAGE
from cashier.web.auth import is_loopback

_HOST = re.compile(r"(?P<name>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
# How long a link may be opened.
LINK_S = 600


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
    def card(self) -> str:
        """The way to the vault."""
        return f"{self.page}/card"

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
    host = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if host is None or not is_loopback(host["name"]):
        raise UnknownAddress
    return f"{scope['scheme']}://{hosts[0]}{scope.get('root_path', '')}"


class PageCall(BrowserCall):
    """Raises `PageRefused` for a path that names no order."""

    def __init__(self, cashier: Cashier, request: Request, now: datetime) -> None:
        super().__init__(cashier, request, now)
        try:
            order_id = msgspec.convert(request.path_params["order_id"], Id)
        except msgspec.ValidationError:
            raise PageRefused(404, PayerProblem.ORDER_UNKNOWN) from None
        self.addresses = self._addresses_of(order_id)
        self.cookies = self._cookies()
        self.session_or_none = self._read_session()
        # The language where there is no session; None: the browser's.
        self.other_locale: str | None = None

    @property
    def order_id(self) -> str:
        return self.addresses.order_id

    @property
    def page(self) -> str:
        return self.addresses.page

    @property
    def session(self) -> SessionClaims:
        """Raises `PageRefused`: the payer has to come from the shop again."""
        if self.session_or_none is None:
            raise PageRefused(403, PayerProblem.TOKEN_EXPIRED)
        return self.session_or_none

    @property
    def wanted_by_session(self) -> Locale | None:
        return self.session_or_none.locale if self.session_or_none is not None else self.other_locale

    @property
    def country(self) -> str:
        session = self.session_or_none
        if session is None:
            return ""
        return (session.order is not None and session.order.country) or session.country or ""

    def require_admission(self) -> None:
        """Before the consultation of a page that is loaded. Raises `PageRefused` under overload.

        What a payer has sent is always taken, and is answered with a checkout if need be.
        """
        admits = self.request.scope.get(ADMITS_PAGE)
        if admits is not None and not admits():
            raise PageRefused(503, PayerProblem.OVERLOADED, retry=self.page, retry_after_s=5)

    def sign_session(self, session: SessionClaims) -> str:
        """Each ends at the same time: using a page prolongs nothing."""
        return self.cashier.tokens.pages.sign_session(session, self.session_ends_at(session))

    @property
    def is_developer(self) -> bool:
        """Never for payers: the configuration is refused where they reach the pages, and a program
        that mounts them may listen elsewhere."""
        return self.settings.developer and is_loopback(self.device.ip or "")

    @property
    def vault(self) -> str:
        """The address of the form in which payers enter a card; empty: they cannot."""
        return self.settings.vault.url

    def session_ends_at(self, session: SessionClaims) -> int:
        return session.opened_at + LINK_S + self.settings.session_s

    @property
    def payer(self) -> str | None:
        """Whose attempts it may find, go on with and replace without their tokens."""
        return self.session.user_id

    def _addresses_of(self, order_id: str) -> PageAddresses:
        return PageAddresses(self.prefix, order_id)

    def _cookies(self) -> PageCookies:
        return PageCookies(self.addresses.page, secure=self.encrypted)

    def _read_session(self) -> SessionClaims | None:
        for token in self.cookies.sessions(self.sent_cookies):
            try:
                return self.cashier.tokens.pages.read_session(token, self.order_id, self.now.timestamp())
            except TokenRefused:
                continue
        return None


def with_locale(session: SessionClaims, locale: str) -> SessionClaims:
    return replace(session, locale=locale)
