"""One request of an embedded cashier: a page of a shop, with tokens in headers.

Browsers keep cookies of another site from a page of a shop, so the script holds the tokens. That of
a session is of a type that opens no page of the order. It permits the methods and the payment of
this order, and no attempt that the script has no token of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from starlette.responses import Response

from cashier.domain.order import Product
from cashier.pages.cookies import PageCookies, SentCookies
from cashier.pages.page_call import PageAddresses, PageCall
from cashier.tokens.jws import TokenRefused
from cashier.tokens.page_session import SessionClaims

EMBED_PATH = "/cashier-embed/"
SESSION_HEADER, PAYMENT_HEADER = "x-cashier-session", "x-cashier-payment"


class EmbedAddresses(PageAddresses, frozen=True):
    @property
    def page(self) -> str:
        return f"{self.prefix}{EMBED_PATH}{self.order_id}"


class HeaderTokens(PageCookies):
    """The tokens of a page, in headers of its requests and responses."""

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        self._headers = headers

    def __repr__(self) -> str:
        return "<HeaderTokens>"

    def sessions(self, sent: SentCookies) -> Iterator[str]:
        scheme, _, token = self._headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer":
            yield token.strip()

    def set_session(self, response: Response, token: str) -> None:
        response.headers[SESSION_HEADER] = token

    def payments(self, sent: SentCookies) -> Iterator[tuple[str, str]]:
        value = self._headers.get(PAYMENT_HEADER.encode(), b"").decode("latin-1")
        payment_id, _, token = value.partition(":")
        if token:
            yield payment_id, token

    def set_payment(self, response: Response, payment_id: str, token: str) -> None:
        response.headers[PAYMENT_HEADER] = f"{payment_id}:{token}"


class EmbedCall(PageCall):
    """`by_link`: with the token of the shop's link, in whose place comes one that lasts longer."""

    by_link = False

    @property
    def is_from_own_page(self) -> bool:
        """The token itself shows it: no browser sends it by itself."""
        return True

    @property
    def is_from_frame(self) -> bool:
        return super().is_from_own_page

    @property
    def payer(self) -> str | None:
        return None

    @property
    def vault(self) -> str:
        """A vault comes back to a page of ours, which the shop's page is not."""
        return ""

    def sign_session(self, session: SessionClaims) -> str:
        return self.cashier.tokens.pages.sign_embed(session, self.session_ends_at(session))

    def _addresses_of(self, order_id: str) -> PageAddresses:
        return EmbedAddresses(self.prefix, order_id)

    def _cookies(self) -> PageCookies:
        return HeaderTokens(self.headers)

    def _read_session(self) -> SessionClaims | None:
        token, pages = next(self.cookies.sessions({}), None), self.cashier.tokens.pages
        if token is None:
            return None
        now_s = self.now.timestamp()
        try:
            return pages.read_embed(token, self.order_id, now_s)
        except TokenRefused:
            pass
        try:
            session = pages.read_link(token, self.order_id, now_s)
        except TokenRefused:
            return None
        self.by_link = True
        return session if session.product is Product.EMBEDDED_CASHIER else None
