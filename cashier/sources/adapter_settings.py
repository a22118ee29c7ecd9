"""The settings of an adapter, and the check of the requests that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from msgspec import Struct

from cashier.source_errors import FailureReason, Garbled
from cashier.sources.answer_encoder import described
from cashier.wire.address_parser import is_visible_ascii
from cashier.wire.request_writer import check_headers
from cashier.wire.transport import Request

_METHODS = ("GET", "POST", "PUT")
_MAX_HEADERS = 100


class AdapterSettings(Struct, frozen=True):
    """`source`: its name, such as `card`. `options`: the table `[sources.NAME.options]`.

    `path_prefix`: of the url, such as `/v2`. It precedes every target, which a signature may need.
    """

    source: str
    options: Mapping[str, Any]
    path_prefix: str


def checked_request(request: Any, name: str) -> Request:
    """A request of an adapter as a transport takes it. Raises `Garbled`, which names the fault.

    `headers` may be a mapping. Only a GET is ever repeated, and only if it is `safe`.
    """
    if not isinstance(request, Request):
        raise _wrong_request(name, f"made no request but {described(request)}")
    headers: Any = request.headers
    try:
        items = headers.items() if isinstance(headers, Mapping) else headers
        pairs = tuple((key, value) for key, value in islice(items, _MAX_HEADERS))
    except Exception:  # noqa: BLE001 - they may be any iterable
        pairs = ((None, None),)
    # Structs do not check their fields.
    fields: tuple[tuple[str, Any, type], ...] = (
        ("target", request.target, str),
        ("method", request.method, str),
        ("body", request.body, bytes),
        *(("headers", text, str) for pair in pairs for text in pair),
    )
    for field, value, expected in fields:
        if not isinstance(value, expected):
            raise _wrong_request(name, f"made a wrong request: {field} holds {described(value)}")
    if request.method not in _METHODS:
        raise _wrong_request(name, f"made a wrong request: its method is not one of {', '.join(_METHODS)}")
    # Without the target, which names the payer.
    if not request.target.startswith("/") or "#" in request.target or not is_visible_ascii(request.target):
        raise _wrong_request(name, "made a wrong request: its target is no percent-encoded path, such as /a?b=c")
    try:
        check_headers(pairs)
    except ValueError as fault:
        raise _wrong_request(name, f"made a wrong request: {fault}") from None
    safe = request.method == "GET" and bool(request.safe)
    return Request(request.target, request.method, request.body, safe, pairs)


def _wrong_request(name: str, fault: str) -> Garbled:
    return Garbled(f"adapter {name} {fault}", reason=FailureReason.ADAPTER)
