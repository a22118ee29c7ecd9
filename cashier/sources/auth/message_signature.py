"""HTTP message signatures (RFC 9421) with hmac-sha256: the service verifies them with a library."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from functools import partial
from itertools import count

from cashier.source_errors import SourceError
from cashier.sources.auth.authenticator import with_headers
from cashier.sources.auth.secret import Secret
from cashier.wire.transport import Request, Response

# RFC 2104, section 3: a shorter key is weaker than the hash.
MIN_SECRET_BYTES = 32
_LABEL = "cashier"
_IDEMPOTENCY_KEY = "idempotency-key"


def secret_bytes(content: bytes, encoding: str) -> bytes:
    """The secret itself. ValueError, without it, if it is too short or not of that encoding."""
    try:
        match encoding:
            case "base64":
                content = base64.b64decode(content, validate=True)
            case "hex":
                content = binascii.unhexlify(content)
    except binascii.Error:
        raise ValueError(f"is not in {encoding}") from None
    if len(content) < MIN_SECRET_BYTES:
        raise ValueError(f"has less than {MIN_SECRET_BYTES} bytes: make one with `openssl rand -base64 32`")
    return content


def covered(name: str, value: str) -> str:
    """The line of one component, RFC 9421, section 2.5."""
    return f'"{name}": {value}\n'


def signature_base(lines: str, parameters: str) -> bytes:
    """`lines`: of all components. `parameters`: from the list of their names on."""
    return f'{lines}"@signature-params": {parameters}'.encode("ascii")


class MessageSignature:
    """An `Authenticator`. `prefix`: of the path, before every target."""

    slow = reads_headers = False

    def __init__(self, key_id: str, secret: Secret[bytes], prefix: str, now: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._prefix = prefix
        self._now = now
        # A nonce is never used twice; it need not be secret.
        self._start = secrets.token_hex(12)
        self._next = count().__next__
        self._end = f'";keyid="{key_id}";alg="hmac-sha256"'

    def authenticate(self, request: Request) -> Request:
        path, _, query = request.target.partition("?")
        names = '"@method" "@path" "@query"'
        lines = f'"@method": {request.method}\n"@path": {self._prefix}{path}\n"@query": ?{query}\n'
        added: tuple[tuple[str, str], ...] = ()
        for name, value in request.headers:
            if name.lower() == _IDEMPOTENCY_KEY:
                names += f' "{_IDEMPOTENCY_KEY}"'
                lines += covered(_IDEMPOTENCY_KEY, value)
        if request.body:
            digest = f"sha-256=:{_base64(hashlib.sha256(request.body).digest())}:"
            names += ' "content-digest"'
            lines += covered("content-digest", digest)
            added = (("Content-Digest", digest),)
        parameters = f'({names});created={int(self._now())};nonce="{self._start}{self._next():x}{self._end}'
        signed = _base64(hmac.digest(self._secret.value, signature_base(lines, parameters), "sha256"))
        return with_headers(
            request,
            (*added, ("Signature-Input", f"{_LABEL}={parameters}"), ("Signature", f"{_LABEL}=:{signed}:")),
            renew=partial(self.authenticate, request),
        )

    def judge(self, request: Request, response: Response) -> Response | SourceError:
        return response

    def __repr__(self) -> str:
        return "<MessageSignature>"


def _base64(content: bytes) -> str:
    return binascii.b2a_base64(content, newline=False).decode("ascii")
