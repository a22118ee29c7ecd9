"""Who a payment is: its id, and the fingerprint by which two submits are the same. Pure, and the same on every worker for ever.

Neither is keyed: secrets rotate, and a payment keeps its id. So an id proves nothing; whoever knows merchant, order and key can compute it.
What may be done with a payment is for its token to say.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from typing import TypeAlias

from cashier.domain.payment_request import PaymentChoice, PaymentMeans

# Another way to compute either gets another number. Then the same submit is another one, so never without need.
_ID_DOMAIN = "cashier payment id 1"
_FINGERPRINT_DOMAIN = "cashier payment fingerprint 1"
# 128 bits: nobody meets another's id by chance, and with `pay_` it is 30 characters.
_ID_BYTES = 16
# As a regular expression, without its ends.
PAYMENT_ID = "pay_[a-z2-7]{26}"

Part: TypeAlias = "str | int | tuple[Part, ...] | None"


def payment_id(merchant_id: str, order_id: str, idempotency_key: str) -> str:
    """`pay_` and 26 of a-z2-7."""
    digest = hashlib.sha256(_written((_ID_DOMAIN, merchant_id, order_id, idempotency_key))).digest()
    return "pay_" + b32encode(digest[:_ID_BYTES]).rstrip(b"=").decode("ascii").lower()


def fingerprint(chosen: PaymentChoice, means: PaymentMeans) -> str:
    """SHA-256 in hexadecimal over what decides who pays what, with what, and where they are sent afterwards.

    Not in it: device (a retry may come over another network, and has to meet the same payment), locale (the language of a text), country
    (a claim that is verified each time), and the consult token (evidence of what was offered; what was taken of it is among the chosen).
    The order of promotions says nothing. Do not show it: it is computed from secrets, and a short one could be guessed by it.
    """
    told: tuple[Part, ...] = (
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
    return hashlib.sha256(_written(told)).hexdigest()


def _written(part: Part) -> bytes:
    """Each part with its type and length, so that no two different ones are written the same."""
    match part:
        case None:
            return b"n"
        case int():
            return _measured(b"i", str(part).encode())
        case str():
            return _measured(b"s", part.encode())
        case tuple():
            return _measured(b"t", b"".join(_written(each) for each in part))


def _measured(mark: bytes, octets: bytes) -> bytes:
    return mark + len(octets).to_bytes(4, "big") + octets
