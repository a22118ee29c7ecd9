"""One request of a browser: where the pages are, whose session it is, in which language."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from urllib.parse import urlsplit

from starlette.requests import Request

from cashier.core import Cashier
from cashier.domain.locale_match import accepted_languages
from cashier.domain.order import Locale
from cashier.domain.pan import looks_like_pan
from cashier.domain.payment_request import Device
from cashier.pages.client_address import client_address
from cashier.pages.cookies import PageCookies, sent_cookies
from cashier.pages.writing import Writing
from cashier.tokens.jws import TokenRefused
from cashier.tokens.page_session import SessionClaims
from cashier.web.request_headers import read_request_id, read_traceparent

_MAX_USER_AGENT = 1024


class BrowserCall(ABC):
    """`now`: the time of the request. `prefix`: the path of the mount point, as browsers see it.

    `cookies`: of the page that the request is for.
    """

    cookies: PageCookies

    def __init__(self, cashier: Cashier, request: Request, now: datetime) -> None:
        self.cashier = cashier
        self.request = request
        self.now = now
        self.settings = cashier.config.settings.pages
        self.headers: dict[bytes, bytes] = dict(request.scope["headers"])
        self.sent_cookies = sent_cookies(request.scope["headers"])
        self.request_id = read_request_id(self.headers)
        self.traceparent = read_traceparent(self.headers)
        public_url = urlsplit(self.settings.public_url)
        self.prefix = public_url.path if self.settings.public_url else request.scope.get("root_path", "")
        self.encrypted = public_url.scheme == "https"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.request_id}>"

    @property
    @abstractmethod
    def page(self) -> str:
        """The address that shows the present state."""

    @property
    @abstractmethod
    def session(self) -> SessionClaims:
        """Raises `PageRefused` without one."""

    @property
    @abstractmethod
    def wanted_by_session(self) -> Locale | None:
        """The language; None leaves it to the browser."""

    @property
    @abstractmethod
    def country(self) -> str:
        """Of the clock; empty: UTC."""

    @property
    def locale(self) -> str:
        """Of the service's texts: the session's, else the browser's."""
        catalog, wanted = self.cashier.catalog, self.wanted_by_session
        if wanted is not None:
            return catalog.locale(wanted)
        return catalog.first_known(accepted_languages(self.headers.get(b"accept-language", b"").decode("latin-1")))

    @property
    def writing(self) -> Writing:
        return Writing(self.cashier.catalog, self.locale, self.now, self.country)

    @property
    def device(self) -> Device:
        peer = self.request.client.host if self.request.client is not None else None
        user_agent = self.headers.get(b"user-agent", b"").decode("latin-1")[:_MAX_USER_AGENT]
        ip = client_address(peer, self.request.scope["headers"], self.settings.proxies)
        # An app names its build by the time of day, and the core refuses what may be a card number.
        is_sent = user_agent and not looks_like_pan(user_agent)
        return Device(ip=ip, user_agent=user_agent if is_sent else None)

    @property
    def is_from_own_page(self) -> bool:
        """Browsers of today say which site sent a request, older ones its origin. That of a form of
        ours is `null`, because our pages are no referrers."""
        site = self.headers.get(b"sec-fetch-site")
        if site is not None:
            return site == b"same-origin"
        return self.headers.get(b"origin", b"null") in (b"null", self._own_origin)

    @property
    def _own_origin(self) -> bytes:
        """As browsers write it. Without a public address that of the request."""
        url = urlsplit(self.settings.public_url)
        if not url.netloc:
            return f"{self.request.scope['scheme']}://".encode() + self.headers.get(b"host", b"").lower()
        netloc = url.netloc.lower().removesuffix({"http": ":80", "https": ":443"}[url.scheme])
        return f"{url.scheme}://{netloc}".encode()

    @property
    def query(self) -> list[tuple[str, str]]:
        return self.request.query_params.multi_items()

    def wanted_locale(self) -> Locale | None:
        """The language that has just been chosen."""
        wanted = self.request.query_params.get("locale")
        return wanted if wanted is not None and wanted in self.cashier.catalog.texts else None

    def held_payment(self) -> tuple[str, str] | None:
        """Id and token of the last payment of this browser, if it is of this session's payer."""
        session, payments = self.session, self.cashier.payments
        if payments is None:
            return None
        own = (session.order_id, session.merchant_id, session.user_id)
        for held in self.cookies.payments(self.sent_cookies):
            try:
                chosen = payments.choice_of(*held)
            except TokenRefused:
                continue
            if (chosen.order_id, chosen.merchant_id, chosen.user_id) == own:
                return held
        return None
