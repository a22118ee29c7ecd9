"""Requests and answers as texts for a report: shapes and codes, no values of a payer.

A report ends in the artefacts of a build. Of a body it has field names, types and words of the
contract; of the headers those that the contract speaks about.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from cashier.source_errors import SourceError
from cashier.wire.transport import Request, Response

_LONGEST_BODY = 240
_ROWS = 2
# Fields whose values are words of a contract, where they look like one.
_CODES = frozenset(("code", "status", "type", "kind", "decision", "currency", "reason", "reversal_reason"))
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,39}")
_OWN_HEADERS = ("X-Conform", "Idempotency-Key")
_HEADERS = (
    "content-type", "content-encoding", "content-length", "transfer-encoding", "connection", "keep-alive",
    "retry-after",
)  # fmt: skip
# Sizes and names that a header of the list may have; anything else is shown as its length.
_HEADER_VALUE = re.compile(r"[A-Za-z0-9 ,;=/+._:\"-]{0,60}")


def described_request(prefix: str, request: Request, deadline_ms: int) -> str:
    """A request of the kit's own. Of headers that may be a credential only the name appears."""
    return _described(f"{prefix}{request.target}", request, f"X-Deadline-Ms: {deadline_ms}")


def described_foreign_request(request: Request) -> str:
    """A request of an adapter, whose query may hold a credential too."""
    path, _, query = request.target.partition("?")
    names = "&".join(f"{part.partition('=')[0]}=…" for part in query.split("&") if part)
    return _described(f"{path}?{names}" if names else path, request)


def _described(target: str, request: Request, *more: str) -> str:
    headers = (f"{name}: {value if name in _OWN_HEADERS else '…'}" for name, value in request.headers)
    shown = ", ".join([f"{request.method} {target}", *more, *headers])
    return f"{shown} {redacted(request.body)}" if request.body else shown


def described_response(response: Response) -> str:
    shown = [str(response.status)]
    for name in _HEADERS:
        value = response.headers.get(name)
        if value is not None:
            shown.append(f"{name}: {value if _HEADER_VALUE.fullmatch(value) else f'{len(value)} characters'}")
    return ", ".join(shown) + f" {redacted(response.body)}"


def described_error(error: SourceError) -> str:
    return error.detail


def redacted(body: bytes) -> str:
    """A body with the types of its values in their place."""
    if not body.strip():
        return "no body"
    try:
        text = orjson.dumps(_shape(orjson.loads(body))).decode()
    except ValueError:
        return f"{len(body)} bytes that are no JSON{_likely_form(body)}"
    return text if len(text) <= _LONGEST_BODY else f"{text[:_LONGEST_BODY]}… of {len(body)} bytes"


def _likely_form(body: bytes) -> str:
    start = body.lstrip()[:1]
    if body.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return ", with a byte order mark"
    return ", HTML or XML" if start == b"<" else ", in another encoding than UTF-8" if not _is_utf8(body) else ""


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shape(value: Any, name: str = "") -> Any:
    match value:
        case dict():
            # A name may be data too, such as an id that is a key of a table.
            return {key if key.isidentifier() else "…": _shape(part, key) for key, part in value.items()}
        case list():
            return [*(_shape(part) for part in value[:_ROWS]), *(["…"] if len(value) > _ROWS else [])]
        case str() if name in _CODES and _CODE.fullmatch(value):
            return value
        case str():
            return "text"
        case bool() | None:
            return value
        case int():
            return value if name == "status" else "integer"
    return "number"
