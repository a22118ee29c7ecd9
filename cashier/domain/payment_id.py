"""Payment id, and the fingerprint that tells whether two submits are the same.

Stable on every worker, forever. Neither uses a secret key, because keys rotate and a payment keeps
its id. So an id authorizes nothing: anyone with merchant, order and idempotency key can compute it.
The payment token authorizes.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from typing import TypeAlias

from cashier.domain.payment_request import PaymentChoice, PaymentMeans

# Change the number with the algorithm. A retry of an older submit is then a different payment.
_ID_DOMAIN = "cashier payment id 1"
_FINGERPRINT_DOMAIN = "cashier payment fingerprint 1"
# 128 bits: no accidental collision, and with `pay_` 30 characters.
_ID_BYTES = 16
# A regular expression without anchors.
PAYMENT_ID = "pay_[a-z2-7]{26}"

Part: TypeAlias = "str | int | tuple[Part, ...] | None"


def payment_id(merchant_id: str, order_id: str, idempotency_key: str) -> str:
    """`pay_` and 26 of a-z2-7."""
    digest = hashlib.sha256(_encoded((_ID_DOMAIN, merchant_id, order_id, idempotency_key))).digest()
    return "pay_" + b32encode(digest[:_ID_BYTES]).rstrip(b"=").decode("ascii").lower()


def fingerprint(chosen: PaymentChoice, means: PaymentMeans) -> str:
    """Hexadecimal SHA-256 over payer, order, choice, price, means and return URL.

    Leaves out: device (a retry over another network is the same payment), locale (only the language
    of texts), country (a claim that is verified each time), consult token (evidence of the offer;
    the choice itself is included). The order of promotions has no effect. Chosen promotions add a
    part only if the payer chose, so that every older submit keeps its fingerprint. Never show it:
    it is computed from secrets, and a short secret could be guessed from it.
    """
    parts: tuple[Part, ...] = (
        _FINGERPRINT_DOMAIN,
        chosen.order_id,
        chosen.user_id,
        chosen.merchant_id,
        chosen.product.value,
        chosen.terminal.value,
        chosen.method_id,
        chosen.option_id,
        tuple(sorted(chosen.promotion_ids)),
        chosen.expected_payable.currency,
        chosen.expected_payable.value,
        means.card_token,
        means.auth_code,
        means.return_url,
    )
    if chosen.chosen_promotions is not None:
        parts += (("chosen_promotions", *sorted(set(chosen.chosen_promotions))),)
    return hashlib.sha256(_encoded(parts)).hexdigest()


def _encoded(part: Part) -> bytes:
    """Injective: each part has its type and length in front."""
    match part:
        case None:
            return b"n"
        case int():
            return _tagged(b"i", str(part).encode())
        case str():
            return _tagged(b"s", part.encode())
        case tuple():
            return _tagged(b"t", b"".join(_encoded(element) for element in part))


def _tagged(tag: bytes, octets: bytes) -> bytes:
    return tag + len(octets).to_bytes(4, "big") + octets
