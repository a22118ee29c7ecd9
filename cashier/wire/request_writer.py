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
_JSON_CONTENT = f"Content-Type: {JSON_MEDIA_TYPE}\r\n"
# RFC 9110, section 5.6.2.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# RFC 9110, section 5.5, without `obs-text`: recipients disagree about its encoding.
_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
# Headers of every request, and those that control framing or the connection. `Accept` and
# `Content-Type` are only defaults.
_RESERVED_HEADERS = frozenset((
    "host", "x-caller", "accept-encoding", "x-request-id", "x-deadline-ms", "traceparent", "tracestate",
    "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "te", "trailer", "upgrade", "expect",
))  # fmt: skip


def check_request(request: Request, call_headers: CallHeaders) -> None:
    """Raise ValueError for a request that must not be sent. It is a bug of its maker."""
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
    if call_headers.tracestate and not _VALUE.fullmatch(call_headers.tracestate):
        raise ValueError(f"tracestate {call_headers.tracestate!r} must be printable ASCII")
    if not target.startswith("/") or "#" in target:
        raise ValueError(f"target {target!r} is not a path with an optional query")
    if request.method not in ALLOWED_METHODS:
        raise ValueError(f"method {request.method!r} is not one of {', '.join(sorted(ALLOWED_METHODS))}")
    if request.headers:
        check_headers(request.headers)


def check_headers(headers: tuple[tuple[str, str], ...]) -> None:
    """Raise ValueError for headers that must not be sent. It names the header, never its value."""
    names = set()
    for name, value in headers:
        key = name.lower()
        if key in names or key in _RESERVED_HEADERS or not _TOKEN.fullmatch(name):
            raise ValueError(f"header {name!r} has an invalid, reserved or repeated name")
        names.add(key)
        # The first is what most values are, in half of the time.
        plain = value and value.isascii() and value.isprintable() and " " not in value
        if not plain and not _VALUE.fullmatch(value):
            raise ValueError(f"the value of header {name} must be printable ASCII, without a space at its ends")


class RequestWriter:
    """Encodes requests for one address."""

    __slots__ = ("_constant", "_constant_without_accept", "_prefix")

    def __init__(self, address: UpstreamAddress) -> None:
        self._prefix = address.prefix
        first = f" HTTP/1.1\r\nHost: {address.authority}\r\nX-Caller: {CALLER}\r\n"
        last = "Accept-Encoding: identity\r\nX-Request-Id: "
        self._constant = f"{first}Accept: {JSON_MEDIA_TYPE}\r\n{last}"
        self._constant_without_accept = f"{first}{last}"

    def encode(self, request: Request, call_headers: CallHeaders, budget_ms: int) -> bytes:
        """Head and body of a request that passed `check_request`."""
        body = request.body
        constant, content_type = self._constant, _JSON_CONTENT
        if request.headers:
            names = {name.lower() for name, _ in request.headers}
            if "accept" in names:
                constant = self._constant_without_accept
            if "content-type" in names:
                content_type = ""
        text = (
            f"{request.method} {self._prefix}{request.target}{constant}{call_headers.request_id}\r\n"
            f"X-Deadline-Ms: {budget_ms}\r\n"
        )
        if call_headers.traceparent:
            text += f"traceparent: {call_headers.traceparent}\r\n"
            if call_headers.tracestate:
                text += f"tracestate: {call_headers.tracestate}\r\n"
        if request.headers:
            text += "".join(f"{name}: {value}\r\n" for name, value in request.headers)
        if not body and request.method in ("GET", "DELETE"):
            return f"{text}\r\n".encode("ascii")
        return f"{text}{content_type}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body
