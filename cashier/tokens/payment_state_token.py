"""The payment token: all state that the service needs of a payment, kept by its caller.

It is signed against changes. Data handed over for this payment alone (card token, auth code, return
URL and the fingerprint computed from them) is also encrypted: the payment can continue after a
challenge without a second transfer, and a token in a log or a browser history reveals none of it.

Replaying an older token repeats its content: it names the same payment, whose id is derived and
which the engine executes once. It moves no expiry, which is part of the token. It resets the count
of attempts to its value at the time; the risk service's own count does not go back. It cannot
concern another payment, or change amount, payer or means. No state, no clock.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from cashier.domain.challenge_progress import ChallengeProgress
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import PaymentChoice, PaymentMeans
from cashier.domain.payment_state import PaymentStatus
from cashier.tokens.consult_token import OfferedPrice
from cashier.tokens.jws import ISSUER, Keyring, TokenRefused, sign
from cashier.tokens.sealing import seal, unseal

PAYMENT_TYPE = "payment+jwt"
# The token travels in a header, and headers may have 64 KiB in all. Most tokens have 1.5 KiB; the
# largest within the bounds of a submit, with four bytes per character, fits.
_MAX_CHARS = 49_152


class TokenRoute(Struct, frozen=True, omit_defaults=True):
    """The chosen channel and the rule that chose it. `alternatives`: further channels in order."""

    rule: str
    channel_id: str
    alternatives: tuple[str, ...] = ()
    probe: bool = False


class _PublicClaims(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The claims that are signed, but not encrypted."""

    iat: int
    exp: int
    payment_id: str
    kind: Kind
    chosen: PaymentChoice
    expires_at: int
    order_expires_at: int | None = None
    order_amount: Money
    offered: OfferedPrice | None = None
    route: TokenRoute | None = None
    sent_at: int | None = None
    challenge: ChallengeProgress | None = None
    cancelled: bool = False
    told: PaymentStatus | None = None
    promotion_titles: dict[str, str] = {}


class PaymentClaims(_PublicClaims, frozen=True, kw_only=True):
    """The state of a payment. Times in seconds since 1970.

    `exp`: the end of the token itself. `expires_at`: the end of the payer's time to act; status
    queries make sense for longer. `order_expires_at`: of the order, as last reported; None in
    tokens of older versions. `order_amount` and `offered`: from the consult token, the latter for
    the chosen method with its promotions and option, and None after the submit. `sent_at`: the
    first submit to the engine, regardless of its outcome; None: none was made. `challenge`: None
    without one, or if it was passed. `cancelled`: the caller asked for cancellation. `told`: the
    status that the caller last received. `promotion_titles`: by id, of the promotions in the price,
    as far as they fit.
    """

    means: PaymentMeans
    fingerprint: str

    def __repr__(self) -> str:
        state = f"sent_at={self.sent_at} challenge={self.challenge!r}"
        return f"<PaymentClaims {self.payment_id} {self.chosen.order_id} {self.kind} {state}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(_public_claims(self).items())


class _Payload(_PublicClaims, frozen=True, kw_only=True):
    """The payload of the token."""

    iss: Literal["cashier"]
    sealed: str


class _SecretClaims(Struct, frozen=True):
    means: PaymentMeans
    fingerprint: str


_payload_decoder = msgspec.json.Decoder(_Payload)
_secret_decoder = msgspec.json.Decoder(_SecretClaims)


class PaymentTokens:
    """Signs and encrypts with the first key of the keyring, verifies and decrypts with all."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def __repr__(self) -> str:
        return f"<PaymentTokens {self._keyring!r}>"

    def sign(self, claims: PaymentClaims) -> str:
        """Raises `ValueError` for claims beyond the bounds of a submit: `read` would refuse it."""
        key = self._keyring.key
        secret = msgspec.json.encode(_SecretClaims(claims.means, claims.fingerprint))
        sealed = seal(secret, key, _purpose(claims.payment_id))
        payload = _Payload(iss=ISSUER, sealed=sealed, **_public_claims(claims))
        token = sign(self._keyring.header(PAYMENT_TYPE), msgspec.json.encode(payload), key)
        if len(token) > _MAX_CHARS:
            raise ValueError(f"a payment token of {len(token)} characters is longer than {_MAX_CHARS}")
        return token

    def read(self, text: str, payment_id: str, now_s: float) -> PaymentClaims:
        """Return the claims of this payment's token. Raises `TokenRefused`."""
        payload, key = self._read(text, payment_id, now_s)
        secret = _unseal(payload.sealed, key, payment_id)
        return PaymentClaims(means=secret.means, fingerprint=secret.fingerprint, **_public_claims(payload))

    def read_choice(self, text: str, payment_id: str, now_s: float) -> PaymentChoice:
        """Return what was chosen, without decryption. Raises `TokenRefused`."""
        return self._read(text, payment_id, now_s)[0].chosen

    def _read(self, text: str, payment_id: str, now_s: float) -> tuple[_Payload, bytes]:
        """The payload and the key that verified it."""
        octets, key = self._keyring.verify(text, PAYMENT_TYPE, _MAX_CHARS)
        try:
            payload = _payload_decoder.decode(octets)
        except (msgspec.DecodeError, RecursionError):
            raise TokenRefused("TOKEN_MALFORMED") from None
        if payload.payment_id != payment_id:
            raise TokenRefused("TOKEN_OTHER_PAYMENT")
        if payload.exp <= now_s:
            raise TokenRefused("TOKEN_EXPIRED")
        return payload, key


def _public_claims(claims: _PublicClaims) -> dict[str, Any]:
    return {name: getattr(claims, name) for name in _PublicClaims.__struct_fields__}


def _purpose(payment_id: str) -> str:
    return f"cashier payment token, sealed part: {payment_id}"


def _unseal(text: str, key: bytes, payment_id: str) -> _SecretClaims:
    try:
        return _secret_decoder.decode(unseal(text, key, _purpose(payment_id)))
    except msgspec.DecodeError:
        raise TokenRefused("TOKEN_MALFORMED") from None
