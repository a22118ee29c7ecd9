"""Requests as bytes: one head per request, with the constant part built once per address.

Request ids and targets contain text from outside. Text that could start another header line is
refused here, for every transport.
"""

from __future__ import annotations

import re

from cashier.wire.address_parser import UpstreamAddress, is_visible_ascii
from cashier.wire.transport import CallHeaders, Request

# HEAD and CONNECT have answers framed differently; no source needs TRACE or OPTIONS.
ALLOWED_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
CALLER = "cashier"
JSON_MEDIA_TYPE = "application/json"
# RFC 9110, section 5.6.2.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Headers of every request, and those that control framing or the connection.
_RESERVED_HEADERS = frozenset((
    "host", "x-caller", "accept", "accept-encoding", "x-request-id", "x-deadline-ms", "traceparent", "content-type",
    "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
))  # fmt: skip


def check_request(request: Request, call_headers: CallHeaders) -> None:
    """Raise ValueError for a request that must not be sent. It is a bug of this program."""
    target = request.target
    # One check of all three together: this runs on every call.
    if (
        not is_visible_ascii(f"{target}{call_headers.request_id}{call_headers.traceparent}")
        or not call_headers.request_id
    ):
        raise ValueError(
            f"target {target!r}, request id {call_headers.request_id!r}"
            f" and traceparent {call_headers.traceparent!r} must be printable ASCII"
        )
    if not target.startswith("/") or "#" in target:
        raise ValueError(f"target {target!r} is not a path with an optional query")
    if request.method not in ALLOWED_METHODS:
        raise ValueError(f"method {request.method!r} is not one of {', '.join(sorted(ALLOWED_METHODS))}")
    if request.headers:
        _check_headers(request.headers)


def _check_headers(headers: tuple[tuple[str, str], ...]) -> None:
    """The error names the header, never its value."""
    names = [name.lower() for name, _ in headers]
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or name.lower() in _RESERVED_HEADERS or names.count(name.lower()) > 1:
            raise ValueError(f"header {name!r} has an invalid, reserved or repeated name")
        if not value or not is_visible_ascii(value):
            raise ValueError(f"the value of header {name} must be printable ASCII")


class RequestWriter:
    """Encodes requests for one address."""

    __slots__ = ("_constant", "_prefix")

    def __init__(self, address: UpstreamAddress) -> None:
        self._prefix = address.prefix
        self._constant = (
            f" HTTP/1.1\r\nHost: {address.authority}\r\nX-Caller: {CALLER}\r\nAccept: {JSON_MEDIA_TYPE}\r\n"
            "Accept-Encoding: identity\r\nX-Request-Id: "
        )

    def encode(self, request: Request, call_headers: CallHeaders, budget_ms: int) -> bytes:
        """Head and body of a request that passed `check_request`."""
        body = request.body
        text = (
            f"{request.method} {self._prefix}{request.target}{self._constant}{call_headers.request_id}\r\n"
            f"X-Deadline-Ms: {budget_ms}\r\n"
        )
        if call_headers.traceparent:
            text += f"traceparent: {call_headers.traceparent}\r\n"
        if request.headers:
            text += "".join(f"{name}: {value}\r\n" for name, value in request.headers)
        if not body and request.method in ("GET", "DELETE"):
            return f"{text}\r\n".encode("ascii")
        return f"{text}Content-Type: {JSON_MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n".encode("ascii") + body
