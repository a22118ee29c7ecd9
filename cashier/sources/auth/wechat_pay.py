"""WeChat Pay API v3: `WECHATPAY2-SHA256-RSA2048`, made and verified.

https://pay.weixin.qq.com/doc/v3/merchant/4012365336 (requests) and 4013053249 (answers).
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from cashier.source_errors import FailureReason, Garbled, SourceError
from cashier.sources.auth.authenticator import with_headers
from cashier.sources.auth.rsa_keys import is_signed, signature
from cashier.sources.auth.secret import Secret
from cashier.sources.source import UNAUTHORIZED_STATUSES, error_of_response
from cashier.wire.transport import Request, Response

SCHEME = "WECHATPAY2-SHA256-RSA2048"
# The window that WeChat Pay prescribes, to either side.
WINDOW_S = 300
# Nonces of answers kept for a window, so that none is accepted twice; beyond, the oldest are
# forgotten early. About 15 MB.
MOST_NONCES = 100_000
# The identifiers of keys, unlike those of certificates, are named in requests too.
_KEY_ID = "PUB_KEY_ID_"
_SERIAL = re.compile(r"[A-Za-z0-9_-]{1,128}")


class WechatPay:
    """An `Authenticator`. `prefix`: of the path, before every target.

    `platform_keys`: what verifies answers, by the serial number that an answer names.
    """

    slow = reads_headers = True

    def __init__(
        self,
        mchid: str,
        serial_no: str,
        key: Secret[RSAPrivateKey],
        platform_keys: Mapping[str, Secret[RSAPublicKey]],
        prefix: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._mchid = mchid
        self._serial_no = serial_no
        self._key = key
        self._platform_keys = platform_keys
        self._prefix = prefix
        self._now = now
        # WeChat Pay refuses requests without a User-Agent, and signs with the key that is named.
        self._constant: tuple[tuple[str, str], ...] = (("User-Agent", "cashier"),)
        named = next((serial for serial in platform_keys if serial.startswith(_KEY_ID)), None)
        if named is not None:
            self._constant += (("Wechatpay-Serial", named),)
        # Those of the last window, and of the one before.
        self._nonces: set[str] = set()
        self._older_nonces: set[str] = set()
        self._nonces_since_s = now()

    def authenticate(self, request: Request) -> Request:
        return self._signed(request, int(self._now()), secrets.token_hex(16))

    def _signed(self, request: Request, timestamp_s: int, nonce: str) -> Request:
        head = f"{request.method}\n{self._prefix}{request.target}\n{timestamp_s}\n{nonce}\n"
        signed = signature(self._key.value, head.encode("ascii") + request.body + b"\n")
        value = (
            f'{SCHEME} mchid="{self._mchid}",nonce_str="{nonce}",signature="{signed}",'
            f'timestamp="{timestamp_s}",serial_no="{self._serial_no}"'
        )
        own = {name.lower() for name, _ in request.headers}
        constant = [header for header in self._constant if header[0].lower() not in own]
        return with_headers(request, (("Authorization", value), *constant), renew=partial(self.authenticate, request))

    def judge(self, request: Request, response: Response) -> Response | SourceError:
        """Every answer must be signed. What only says that there is none need not be."""
        fault = self._fault(response)
        if fault is None:
            return response
        status = response.status
        if status in UNAUTHORIZED_STATUSES or status == 429 or status >= 500:
            return error_of_response(response)
        forged = f"status {status}, {fault}: it may be forged, and counts as no answer"
        return response.discredit(Garbled(forged, reason=FailureReason.SIGNATURE))

    def _fault(self, response: Response) -> str | None:
        """Why the answer is not proven to be WeChat Pay's, and new. None: it is."""
        headers = response.headers
        signed, serial = headers.get("Wechatpay-Signature", ""), headers.get("Wechatpay-Serial", "")
        timestamp, nonce = headers.get("Wechatpay-Timestamp", ""), headers.get("Wechatpay-Nonce", "")
        if not (signed and serial and timestamp and nonce):
            return "not signed"
        key = self._platform_keys.get(serial)
        if key is None:
            shown = serial if _SERIAL.fullmatch(serial) else "another one"
            return f"signed by a key that platform_keys does not have: {shown}"
        now_s = self._now()
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            return "signed at no time"
        if abs(now_s - int(timestamp)) > WINDOW_S:
            return f"signed {abs(now_s - int(timestamp)):.0f} s away from the time of this machine"
        text = f"{timestamp}\n{nonce}\n".encode("latin-1") + response.body + b"\n"
        if not is_signed(key.value, text, signed):
            return "wrongly signed"
        return None if self._is_new(nonce, now_s) else "received before"

    def _is_new(self, nonce: str, now_s: float) -> bool:
        # Twice the window: an answer may be signed in the future, and repeated in the past.
        if now_s - self._nonces_since_s > 2 * WINDOW_S or len(self._nonces) >= MOST_NONCES // 2:
            self._older_nonces, self._nonces, self._nonces_since_s = self._nonces, set(), now_s
        if nonce in self._nonces or nonce in self._older_nonces:
            return False
        self._nonces.add(nonce)
        return True

    def __repr__(self) -> str:
        return f"<WechatPay {self._mchid}>"
