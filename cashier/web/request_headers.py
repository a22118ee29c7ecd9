"""Reads request headers into values that are safe to log and to send upstream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits

from cashier.caller_trace import CallerTrace
from cashier.domain.pan import looks_issued
from cashier.web.problem import FieldProblem, ProblemCode, RequestRefused

# The largest effective X-Request-Timeout-Ms, and the bound of `deadline_ms` in the body. A larger
# header value counts as this.
MAX_TIMEOUT_MS = 60_000

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,64}")
# Few other ids have as many digits in a row, and the full test takes twenty times as long.
_MAYBE_CARD_NUMBER = re.compile(rb"(?<![0-9A-Za-z])[2-9](?:[_.-]{0,3}[0-9]){12}")
_JSON = re.compile(rb"application/(?:[a-z0-9.!#$&^_+-]+\+)?json[ \t]*(?:;.*)?", re.IGNORECASE)
_TIMEOUT = "X-Request-Timeout-Ms"


def read_request_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's X-Request-Id if it is 1 to 64 of `A-Za-z0-9_.:-`, else 96 random bits in hex.

    Not one that looks like a card number: ids are logged, kept in records and sent upstream.
    """
    claimed = headers.get(b"x-request-id")
    if claimed is not None and _REQUEST_ID.fullmatch(claimed):
        request_id = claimed.decode("ascii")
        if not (_MAYBE_CARD_NUMBER.search(claimed) and looks_issued(request_id)):
            return request_id
    return "%024x" % getrandbits(96)  # noqa: UP031 - half the cost of a format string, and of a system call


def read_traceparent(headers: Mapping[bytes, bytes]) -> str | None:
    """The caller's traceparent, a `CallerTrace` if a tracestate came with it; None if it is absent.

    The service ignores one that is not valid.
    """
    claimed = headers.get(b"traceparent")
    if claimed is None:
        return None
    state = headers.get(b"tracestate")
    traceparent = claimed.decode("latin-1")
    return traceparent if state is None else CallerTrace(traceparent, state.decode("latin-1"))


def read_timeout_ms(headers: Mapping[bytes, bytes]) -> int | None:
    """X-Request-Timeout-Ms, at most `MAX_TIMEOUT_MS`; None if absent.

    Raises `RequestRefused` (INVALID) unless it is a whole number of at least 1.
    """
    claimed = headers.get(b"x-request-timeout-ms")
    if claimed is None:
        return None
    if not claimed.isdigit():
        raise _invalid_timeout("BAD_FORMAT", "must be a whole number of milliseconds in decimal digits")
    # Ten digits or more exceed the bound and are never converted.
    timeout_ms = MAX_TIMEOUT_MS if len(claimed) > 9 else int(claimed)
    if timeout_ms < 1:
        raise _invalid_timeout("OUT_OF_RANGE", "must be at least 1")
    return min(timeout_ms, MAX_TIMEOUT_MS)


def is_json(content_type: bytes | None) -> bool:
    """Whether a body of this Content-Type, or without one, may be read as JSON."""
    return content_type is None or content_type == b"application/json" or _JSON.fullmatch(content_type) is not None


def declared_length_exceeds(headers: Mapping[bytes, bytes], limit_bytes: int) -> bool:
    """Whether Content-Length is over the limit. The server deals with one that is no number."""
    declared = headers.get(b"content-length")
    if declared is None or not declared.isdigit():
        return False
    # Leading zeros are legal, and Python refuses to convert thousands of digits.
    return len(digits := declared.lstrip(b"0")) > 18 or int(digits or b"0") > limit_bytes


def _invalid_timeout(code: str, message: str) -> RequestRefused:
    return RequestRefused(
        ProblemCode.INVALID, f"The header {_TIMEOUT} {message}.", errors=(FieldProblem(_TIMEOUT, code, message),)
    )
