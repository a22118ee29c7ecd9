"""The payment token: all that the service has to remember of a payment, kept by its caller. No state, no clock.

Signed, so that nobody changes it. What the caller handed over for this payment alone (card token, auth code, return url, and the
fingerprint, which is computed from them) is encrypted besides: the same payment goes on after a challenge without their sending it again,
and a token that is seen in a log or a browser's history gives nothing of it away.

What presenting an older token can do: say again what it said. It names the same payment, whose id is derived and which the engine carries
out once. It moves no expiry, which is in it. It takes the count of attempts back to what it was then; the risk service's own count does not
go back. What it cannot do: be of another payment, or change what is paid, by whom or with what.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from cashier.domain.challenge_progress import ChallengeProgress
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import PaymentChoice, PaymentMeans
from cashier.domain.payment_state import PaymentStatus
from cashier.tokens.consult_token import OfferedPrice
from cashier.tokens.jws import ISSUER, Keyring, TokenRefused, b64url_decode, b64url_encode, sign

PAYMENT_TYPE = "payment+jwt"
# It travels in a header, and ours may have 64 KiB in all. Most tokens have one and a half; the largest that the bounds of a submit allow,
# in an alphabet of four bytes a letter, is within it.
_LONGEST = 49_152
_NONCE_BYTES = 12


class TokenRoute(Struct, frozen=True, omit_defaults=True):
    """Where the payment went, and by which rule. `alternatives`: channels in order."""

    rule: str
    channel_id: str
    alternatives: tuple[str, ...] = ()
    probe: bool = False


class _Shown(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What anybody who has the token may read."""

    iat: int
    exp: int
    payment_id: str
    kind: Kind
    chosen: PaymentChoice
    expires_at: int
    order_amount: Money
    offered: OfferedPrice | None = None
    route: TokenRoute | None = None
    sent_at: int | None = None
    challenge: ChallengeProgress | None = None
    cancelled: bool = False
    told: PaymentStatus | None = None


class PaymentClaims(_Shown, frozen=True, kw_only=True):
    """Where a payment stands. Times in seconds since 1970.

    `exp` is the token's own end. `expires_at`: until when the payer may act; looking is worth while for longer. `order_amount` and
    `offered`: what the consult token said of the order, and of the chosen method with its promotions and its option. `sent_at`: when the
    engine was first asked to take the money, whatever became of that; None: it never was. `challenge`: None where there is none, or it was
    passed. `cancelled`: the caller wants no more of it.
    """

    means: PaymentMeans
    fingerprint: str

    def __repr__(self) -> str:
        return f"<PaymentClaims {self.payment_id} {self.chosen.order_id} {self.kind} sent_at={self.sent_at} challenge={self.challenge!r}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(_shown(self).items())


class _Written(_Shown, frozen=True, kw_only=True):
    """As it is in the token."""

    iss: Literal["cashier"]
    sealed: str


class _Sealed(Struct, frozen=True):
    means: PaymentMeans
    fingerprint: str


_written_decoder = msgspec.json.Decoder(_Written)
_sealed_decoder = msgspec.json.Decoder(_Sealed)


class PaymentTokens:
    """Signs and seals with the first key, verifies and opens with all."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def __repr__(self) -> str:
        return f"<PaymentTokens {self._keyring!r}>"

    def sign(self, claims: PaymentClaims) -> str:
        """Raises `ValueError` for claims beyond the bounds of a submit, whose token nobody would read."""
        key = self._keyring.key
        sealed = _seal(_Sealed(claims.means, claims.fingerprint), key, claims.payment_id)
        written = _Written(iss=ISSUER, sealed=sealed, **_shown(claims))
        token = sign(self._keyring.header(PAYMENT_TYPE), msgspec.json.encode(written), key)
        if len(token) > _LONGEST:
            raise ValueError(f"a payment token of {len(token)} characters is longer than {_LONGEST}")
        return token

    def read(self, text: str, payment_id: str, now_s: float) -> PaymentClaims:
        """What the token of this payment says. Raises `TokenRefused`."""
        payload, key = self._keyring.verified(text, PAYMENT_TYPE, _LONGEST)
        try:
            written = _written_decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            raise TokenRefused("TOKEN_MALFORMED") from None
        if written.payment_id != payment_id:
            raise TokenRefused("TOKEN_OTHER_PAYMENT")
        if written.exp <= now_s:
            raise TokenRefused("TOKEN_EXPIRED")
        sealed = _opened(written.sealed, key, payment_id)
        return PaymentClaims(means=sealed.means, fingerprint=sealed.fingerprint, **_shown(written))


def _shown(claims: _Shown) -> dict[str, Any]:
    return {name: getattr(claims, name) for name in _Shown.__struct_fields__}


def _cipher(key: bytes, payment_id: str) -> AESGCM:
    """A key for each payment. Random nonces are safe for 2^32 messages under one (NIST SP 800-38D, 8.3), which all payments may reach."""
    derived = HKDF(SHA256(), length=32, salt=None, info=b"cashier payment token, sealed part: " + payment_id.encode())
    return AESGCM(derived.derive(key))


def _seal(sealed: _Sealed, key: bytes, payment_id: str) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    return b64url_encode(nonce + _cipher(key, payment_id).encrypt(nonce, msgspec.json.encode(sealed), None)).decode("ascii")


def _opened(text: str, key: bytes, payment_id: str) -> _Sealed:
    try:
        octets = b64url_decode(text)
        plain = _cipher(key, payment_id).decrypt(octets[:_NONCE_BYTES], octets[_NONCE_BYTES:], None)
        return _sealed_decoder.decode(plain)
    except (InvalidTag, ValueError, msgspec.DecodeError):
        raise TokenRefused("TOKEN_MALFORMED") from None
