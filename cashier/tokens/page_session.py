"""The tokens of the pages: the link that opens one, its session, and the address of a return.

All are in URLs or cookies, so everything but the id of the order or till is encrypted. A link is
short-lived and may be used again until then: previews, a second device and a lost answer use it
too. It is no session: what leaks from a browser's history opens nothing later. A return is known to
banks and wallets, so it permits to see a result and nothing else. No state, no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from cashier.domain.money import Currency, Money
from cashier.domain.order import Country, Id, Locale, Product, Terminal
from cashier.domain.payment_request import Secret, Url
from cashier.tokens.jws import ISSUER, Keyring, TokenRefused, sign
from cashier.tokens.sealing import seal, seal_alike, unseal, unseal_alike

LINK_TYPE = "cashier-link+jwt"
SESSION_TYPE = "cashier-session+jwt"
RETURN_TYPE = "cashier-return+jwt"
EMBED_TYPE = "cashier-embed+jwt"
CARD_TYPE = "cashier-card+jwt"
TILL_LINK_TYPE = "cashier-till-link+jwt"
TILL_TYPE = "cashier-till+jwt"
_MAX_CHARS = 16_384


class ShownOrder(Struct, frozen=True, omit_defaults=True):
    """The order as its payer saw it last. `expires_at`: in seconds since 1970.

    `merchant`: the name. `country`: of the clock.
    """

    title: str
    amount: Money
    expires_at: int
    merchant: str = ""
    country: Country | None = None


class PaidBy(Struct, frozen=True):
    """The method of a payment by the title that its payer saw, for their own pages only."""

    payment_id: str
    title: str


class KeptCard(Struct, frozen=True):
    """A card that the payer has entered at the vault. `attempt`: the payment that had ended."""

    token: Secret
    attempt: str

    # Secrets stay out of logs.
    def __repr__(self) -> str:
        return "<KeptCard>"


class SessionClaims(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who pays what, and where. Times in seconds since 1970.

    `session_id`: secret and random; that of a link is that of each session that it opens. Form
    tokens and idempotency keys are derived from it. `opened_at`: when the shop got the link.
    `order`: None before it was shown. `paid_by`: of the last payment of this browser.
    """

    session_id: str
    opened_at: int
    order_id: Id
    merchant_id: Id
    user_id: Id | None = None
    product: Product
    terminal: Terminal
    amount: Money | None = None
    country: Country | None = None
    locale: Locale | None = None
    return_url: Url | None = None
    order: ShownOrder | None = None
    paid_by: PaidBy | None = None
    card: KeptCard | None = None

    # Secrets stay out of logs.
    def __repr__(self) -> str:
        return f"<SessionClaims {self.order_id}>"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("order_id", self.order_id)]


class CardClaims(Struct, frozen=True, kw_only=True):
    """The state that a vault's form gives back. `session`: a digest of its secret."""

    order_id: Id
    session: str
    method_id: str
    attempt: str


class ReturnClaims(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payment that a payer comes back from.

    `return_url`: to the shop, of an embedded cashier, which has no session on our pages.
    """

    order_id: Id
    merchant_id: Id
    user_id: Id | None = None
    payment_id: str
    locale: Locale | None = None
    return_url: Url | None = None

    # A shop's address may have a session of its own.
    def __repr__(self) -> str:
        return f"<ReturnClaims {self.payment_id}>"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("payment_id", self.payment_id)]


class TillClaims(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A till of a merchant. `session_id`: as of `SessionClaims`."""

    session_id: str
    merchant_id: Id
    terminal_id: Id
    currency: Currency
    country: Country | None = None
    locale: Locale | None = None

    @property
    def till(self) -> str:
        return till_of(self.merchant_id, self.terminal_id)

    # Secrets stay out of logs.
    def __repr__(self) -> str:
        return f"<TillClaims {self.till}>"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("till", self.till)]


class _Payload(Struct, frozen=True):
    """`subject`: the id of an order, or a till."""

    iss: Literal["cashier"]
    exp: int
    subject: str
    sealed: str


_payload_decoder = msgspec.json.Decoder(_Payload)
_session_decoder = msgspec.json.Decoder(SessionClaims)
_return_decoder = msgspec.json.Decoder(ReturnClaims)
_till_decoder = msgspec.json.Decoder(TillClaims)
_card_decoder = msgspec.json.Decoder(CardClaims)
T = TypeVar("T", SessionClaims, ReturnClaims, TillClaims, CardClaims)
Seal: TypeAlias = Callable[[bytes, bytes, str], str]
Unseal: TypeAlias = Callable[[str, bytes, str], bytes]


class PageTokens:
    """Signs and encrypts with the first key of the keyring, verifies and decrypts with all.

    `expires_at` in seconds since 1970. All readers raise `TokenRefused`.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def __repr__(self) -> str:
        return f"<PageTokens {self._keyring!r}>"

    def sign_link(self, claims: SessionClaims, expires_at: int) -> str:
        return self._sign(LINK_TYPE, claims.order_id, claims, expires_at)

    def read_link(self, text: str, order_id: str, now_s: float) -> SessionClaims:
        return self._read(text, LINK_TYPE, order_id, now_s, _session_decoder)

    def sign_session(self, claims: SessionClaims, expires_at: int) -> str:
        return self._sign(SESSION_TYPE, claims.order_id, claims, expires_at)

    def read_session(self, text: str, order_id: str, now_s: float) -> SessionClaims:
        return self._read(text, SESSION_TYPE, order_id, now_s, _session_decoder)

    def sign_embed(self, claims: SessionClaims, expires_at: int) -> str:
        """For the script of a shop's page. No cookie: it opens no page of the order."""
        return self._sign(EMBED_TYPE, claims.order_id, claims, expires_at)

    def read_embed(self, text: str, order_id: str, now_s: float) -> SessionClaims:
        return self._read(text, EMBED_TYPE, order_id, now_s, _session_decoder)

    def sign_return(self, claims: ReturnClaims, expires_at: int) -> str:
        """Equal for equal claims: the return address is part of what a repeated submit compares."""
        return self._sign(RETURN_TYPE, claims.order_id, claims, expires_at, seal_text=seal_alike)

    def read_return(self, text: str, order_id: str, now_s: float) -> ReturnClaims:
        return self._read(text, RETURN_TYPE, order_id, now_s, _return_decoder, unseal_text=unseal_alike)

    def sign_card_state(self, claims: CardClaims, expires_at: int) -> str:
        return self._sign(CARD_TYPE, claims.order_id, claims, expires_at)

    def read_card_state(self, text: str, order_id: str, now_s: float) -> CardClaims:
        return self._read(text, CARD_TYPE, order_id, now_s, _card_decoder)

    def sign_till_link(self, claims: TillClaims, expires_at: int) -> str:
        return self._sign(TILL_LINK_TYPE, claims.till, claims, expires_at)

    def read_till_link(self, text: str, till: str, now_s: float) -> TillClaims:
        return self._read(text, TILL_LINK_TYPE, till, now_s, _till_decoder)

    def sign_till(self, claims: TillClaims, expires_at: int) -> str:
        return self._sign(TILL_TYPE, claims.till, claims, expires_at)

    def read_till(self, text: str, till: str, now_s: float) -> TillClaims:
        return self._read(text, TILL_TYPE, till, now_s, _till_decoder)

    def _sign(self, kind: str, subject: str, claims: Struct, expires_at: int, seal_text: Seal = seal) -> str:
        key = self._keyring.key
        sealed = seal_text(msgspec.json.encode(claims), key, _purpose(kind, subject))
        payload = _Payload(ISSUER, expires_at, subject, sealed)
        return sign(self._keyring.header(kind), msgspec.json.encode(payload), key)

    def _read(
        self,
        text: str,
        kind: str,
        subject: str,
        now_s: float,
        decoder: msgspec.json.Decoder[T],
        unseal_text: Unseal = unseal,
    ) -> T:
        octets, key = self._keyring.verify(text, kind, _MAX_CHARS)
        try:
            payload = _payload_decoder.decode(octets)
        except (msgspec.DecodeError, RecursionError):
            raise TokenRefused("TOKEN_MALFORMED") from None
        if payload.subject != subject:
            raise TokenRefused("TOKEN_OTHER_ORDER")
        if payload.exp <= now_s:
            raise TokenRefused("TOKEN_EXPIRED")
        try:
            return decoder.decode(unseal_text(payload.sealed, key, _purpose(kind, subject)))
        except msgspec.DecodeError:
            raise TokenRefused("TOKEN_MALFORMED") from None


def till_of(merchant_id: str, terminal_id: str) -> str:
    """Neither id has a slash."""
    return f"{merchant_id}/{terminal_id}"


def _purpose(kind: str, subject: str) -> str:
    return f"cashier page token {kind}: {subject}"
