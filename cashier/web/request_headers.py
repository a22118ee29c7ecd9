"""What the hot route takes from request headers, each as a value that is safe to log and to send on. No bodies, no answers here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits

from cashier.web.problem import FieldProblem, ProblemCode, RequestRefused

# The latest a caller may ask for; the same bound as `deadline_ms` in the body. More patience than this is taken as this.
MAX_TIMEOUT_MS = 60_000

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,64}")
# W3C Trace Context, version 00: no all-zero ids.
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_JSON = re.compile(rb"application/(?:[a-z0-9.!#$&^_+-]+\+)?json[ \t]*(?:;.*)?", re.IGNORECASE)
_TIMEOUT = "X-Request-Timeout-Ms"


def read_request_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's, where it is 1 to 64 of `A-Za-z0-9_.:-`; else 96 random bits in hexadecimal."""
    claimed = headers.get(b"x-request-id")
    if claimed is not None and _REQUEST_ID.fullmatch(claimed):
        return claimed.decode("ascii")
    return "%024x" % getrandbits(96)  # noqa: UP031 - half the price of a format string, and of a call to the kernel


def read_traceparent(headers: Mapping[bytes, bytes]) -> str | None:
    """The caller's trace, or None where there is none or one that W3C Trace Context does not allow."""
    claimed = headers.get(b"traceparent")
    if claimed is not None and _TRACEPARENT.fullmatch(claimed):
        return claimed.decode("ascii")
    return None


def read_timeout_ms(headers: Mapping[bytes, bytes]) -> int | None:
    """How long the caller waits, at most `MAX_TIMEOUT_MS`. Raises `RequestRefused` (INVALID) for what is not a whole number of at least 1."""
    claimed = headers.get(b"x-request-timeout-ms")
    if claimed is None:
        return None
    if not claimed.isdigit():
        raise _bad_timeout("BAD_FORMAT", "must be a whole number of milliseconds in decimal digits")
    # Whatever has ten digits or more is beyond the bound, and is never turned into a number.
    patience_ms = MAX_TIMEOUT_MS if len(claimed) > 9 else int(claimed)
    if patience_ms < 1:
        raise _bad_timeout("OUT_OF_RANGE", "must be at least 1")
    return min(patience_ms, MAX_TIMEOUT_MS)


def is_json(content_type: bytes | None) -> bool:
    """Whether a body so labelled may be read as JSON; an unlabelled one may."""
    return content_type is None or content_type == b"application/json" or _JSON.fullmatch(content_type) is not None


def declared_length_exceeds(headers: Mapping[bytes, bytes], limit_bytes: int) -> bool:
    """Whether Content-Length promises a body over the limit. A promise that is no number is the server's business, not ours."""
    declared = headers.get(b"content-length")
    if declared is None or not declared.isdigit():
        return False
    return len(declared) > 18 or int(declared) > limit_bytes


def _bad_timeout(code: str, message: str) -> RequestRefused:
    return RequestRefused(
        ProblemCode.INVALID, f"The header {_TIMEOUT} {message}.", errors=(FieldProblem(_TIMEOUT, code, message),)
    )
