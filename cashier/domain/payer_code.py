"""The code that a payer shows at a till, and whose it is. Only what the wallets publish; any other code may be anybody's.

WeChat Pay: 18 digits from 10 to 15 (its documentation of payment codes). Alipay: 16 to 24 digits from 25 to 30 (`alipay.trade.pay`).
UnionPay: 19 digits that begin with 62 (its QR code payment specification).
"""

from __future__ import annotations

_PUBLISHED: tuple[tuple[str, range, range], ...] = (
    ("WECHAT_PAY", range(10, 16), range(18, 19)),
    ("ALIPAY", range(25, 31), range(16, 25)),
    ("UNIONPAY", range(62, 63), range(19, 20)),
)


def provider_of(auth_code: str) -> str | None:
    """The channels' `provider`; None where the code does not tell."""
    if not (auth_code.isascii() and auth_code.isdigit()):
        return None
    prefix = int(auth_code[:2])
    return next((name for name, prefixes, lengths in _PUBLISHED if prefix in prefixes and len(auth_code) in lengths), None)
