"""The secrets in a page's forms, derived from its session. Nothing is kept.

The token shows that our own page made the form, for this session, order and attempt: a page of
another site cannot read it. The idempotency key follows from what was chosen, so a reload, "back",
a second tab and a double click send the same payment again, and another choice is another payment.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from cashier.tokens.page_session import SessionClaims

# An idempotency key may not look like a card number, so it has no digits.
_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopabcdef")
_KEY_LETTERS = 48
_SALT_LETTERS = 16


def form_token(session: SessionClaims, attempt: str) -> str:
    """`attempt`: the payment that ended before this form; empty for the first.

    Another text each time, so that the length of a compressed page tells nothing about it.
    """
    salt = secrets.token_hex(_SALT_LETTERS // 2)
    return salt + _mac(session, "form", salt, attempt)


def is_form_token(token: str, session: SessionClaims, attempt: str) -> bool:
    salt = token[:_SALT_LETTERS]
    return hmac.compare_digest(token.encode(), (salt + _mac(session, "form", salt, attempt)).encode())


def idempotency_key(session: SessionClaims, attempt: str, *choice: str) -> str:
    return _mac(session, "key", attempt, *choice).translate(_LETTERS)[:_KEY_LETTERS]


def _mac(session: SessionClaims, purpose: str, *parts: str) -> str:
    whole = "".join(f"{len(part)}:{part}" for part in (purpose, session.merchant_id, session.order_id, *parts))
    return hmac.new(session.session_id.encode(), whole.encode(), hashlib.sha256).hexdigest()
