"""The stream ticket: the right to follow the events of one payment, for a URL.

URLs are logged and kept, so everything but the payment's id is encrypted. The ticket has neither
the means of payment nor the right to act. No state, no clock.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cashier.domain.payment_request import PaymentMeans
from cashier.tokens.jws import ISSUER, Keyring, TokenRefused, sign
from cashier.tokens.payment_state_token import PaymentClaims
from cashier.tokens.sealing import seal, unseal

STREAM_TYPE = "stream+jwt"
# Proxies commonly bound a request line to 8 KiB. Most tickets have 1.5.
_MAX_CHARS = 49_152


class _TicketPayload(Struct, frozen=True):
    iss: Literal["cashier"]
    exp: int
    payment_id: str
    sealed: str


_payload_decoder = msgspec.json.Decoder(_TicketPayload)
_claims_decoder = msgspec.json.Decoder(PaymentClaims)


class StreamTickets:
    """Signs and encrypts with the first key of the keyring, verifies and decrypts with all."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def __repr__(self) -> str:
        return f"<StreamTickets {self._keyring!r}>"

    def sign(self, claims: PaymentClaims, expires_at: int) -> str:
        """`expires_at`: of the ticket, in seconds since 1970."""
        # A status needs neither. What is left keeps the URL short.
        chosen = replace(claims.chosen, promotion_ids=(), chosen_promotions=None)
        watched = replace(claims, chosen=chosen, means=PaymentMeans(), offered=None)
        key = self._keyring.key
        sealed = seal(msgspec.json.encode(watched), key, _purpose(claims.payment_id))
        payload = _TicketPayload(ISSUER, expires_at, claims.payment_id, sealed)
        return sign(self._keyring.header(STREAM_TYPE), msgspec.json.encode(payload), key)

    def read(self, text: str, payment_id: str, now_s: float) -> PaymentClaims:
        """The claims of this payment, without its means. Raises `TokenRefused`."""
        octets, key = self._keyring.verify(text, STREAM_TYPE, _MAX_CHARS)
        try:
            payload = _payload_decoder.decode(octets)
        except (msgspec.DecodeError, RecursionError):
            raise TokenRefused("TOKEN_MALFORMED") from None
        if payload.payment_id != payment_id:
            raise TokenRefused("TOKEN_OTHER_PAYMENT")
        if payload.exp <= now_s:
            raise TokenRefused("TOKEN_EXPIRED")
        try:
            return _claims_decoder.decode(unseal(payload.sealed, key, _purpose(payment_id)))
        except msgspec.DecodeError:
            raise TokenRefused("TOKEN_MALFORMED") from None


def _purpose(payment_id: str) -> str:
    return f"cashier stream ticket: {payment_id}"
