"""What an adapter gets when it is made, and the check of the requests that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from cashier.source_errors import Garbled
from cashier.wire.transport import Request

_METHODS = ("GET", "POST", "PUT")


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
        raise Garbled(f"adapter {name} made no request but a {type(request).__name__}")
    headers: Any = request.headers
    try:
        pairs = tuple((key, value) for key, value in (headers.items() if isinstance(headers, Mapping) else headers))
    except (TypeError, ValueError):
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
            raise Garbled(f"adapter {name} made a wrong request: {field} holds a {type(value).__name__}")
    if request.method not in _METHODS:
        raise Garbled(f"adapter {name} made a wrong request: its method is not one of {', '.join(_METHODS)}")
    safe = request.method == "GET" and request.safe is not False
    return Request(request.target, request.method, request.body, safe, pairs)
