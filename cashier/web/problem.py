"""Problems: what a caller is told when there is no answer, as RFC 9457 documents. Statuses and titles are here, nowhere else.

`code` is stable and is what programs read; `detail` is for people. Nothing that a caller sent is repeated: a free text may be a card
number.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct

from cashier.fanout.ask import SourceReport


class Code(StrEnum):
    MALFORMED = "MALFORMED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    ORDER_UNKNOWN = "ORDER_UNKNOWN"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    BODY_TIMEOUT = "BODY_TIMEOUT"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    INVALID = "INVALID"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    INTERNAL = "INTERNAL"
    NOT_READY = "NOT_READY"
    OVERLOADED = "OVERLOADED"
    REQUIRED_SOURCE_UNAVAILABLE = "REQUIRED_SOURCE_UNAVAILABLE"


KNOWN: dict[Code, tuple[int, str]] = {
    Code.MALFORMED: (400, "The request cannot be read"),
    Code.UNAUTHENTICATED: (401, "Who asks is not known"),
    Code.FORBIDDEN: (403, "Who asks may not do this"),
    Code.NOT_FOUND: (404, "There is nothing here"),
    Code.ORDER_UNKNOWN: (404, "There is no such order"),
    Code.METHOD_NOT_ALLOWED: (405, "Not with this method"),
    Code.BODY_TIMEOUT: (408, "The body took too long"),
    Code.TOO_LARGE: (413, "The body is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "The body is not JSON"),
    Code.INVALID: (422, "The request breaks the contract"),
    Code.HEADERS_TOO_LARGE: (431, "The headers are too large"),
    Code.INTERNAL: (500, "This is our fault"),
    Code.NOT_READY: (503, "Not ready"),
    Code.OVERLOADED: (503, "Too much to do"),
    Code.REQUIRED_SOURCE_UNAVAILABLE: (503, "A required source did not answer"),
}


class Fault(Struct, frozen=True):
    """What is wrong with one field. `field` is its path, `amount.value`; empty for the body as a whole. Or it is a header's name."""

    field: str
    code: str
    message: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """An RFC 9457 problem document. `sources`: reports of the sources that were asked, where their silence is the problem."""

    type: str
    title: str
    status: int
    code: Code
    detail: str
    errors: tuple[Fault, ...] = ()
    sources: tuple[SourceReport, ...] = ()


def problem(code: Code, detail: str, errors: tuple[Fault, ...] = (), sources: tuple[SourceReport, ...] = ()) -> Problem:
    status, title = KNOWN[code]
    return Problem(f"urn:cashier:problem:{code.value}", title, status, code, detail, errors, sources)


Headers = tuple[tuple[bytes, bytes], ...]
PROBLEM_TYPE = (b"content-type", b"application/problem+json")
_encoder = msgspec.json.Encoder()


def encode_problem(what: Problem) -> bytes:
    return _encoder.encode(what)


class Refused(Exception):
    """A request that gets a problem for an answer. `headers` go with it."""

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        errors: tuple[Fault, ...] = (),
        sources: tuple[SourceReport, ...] = (),
        headers: Headers = (),
    ) -> None:
        super().__init__(detail)
        self.problem = problem(code, detail, errors, sources)
        self.headers = headers
