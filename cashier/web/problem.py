"""Problems: what a caller is told when there is no answer, as RFC 9457 documents. Statuses and titles are here, nowhere else.

`code` is stable and is what programs read; `detail` is for people. Nothing that a caller sent is repeated: a free text may be a card
number.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct

from cashier.consultation.flow import Consultation
from cashier.domain.offer_diff import Change
from cashier.fanout.ask import SourceReport


class ProblemCode(StrEnum):
    MALFORMED = "MALFORMED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RISK_REJECTED = "RISK_REJECTED"
    FORBIDDEN = "FORBIDDEN"
    TOKEN_MALFORMED = "TOKEN_MALFORMED"  # noqa: S105 - these are no tokens
    TOKEN_TAMPERED = "TOKEN_TAMPERED"  # noqa: S105
    TOKEN_UNKNOWN_KEY = "TOKEN_UNKNOWN_KEY"  # noqa: S105
    TOKEN_WRONG_TYPE = "TOKEN_WRONG_TYPE"  # noqa: S105
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105
    TOKEN_OTHER_ORDER = "TOKEN_OTHER_ORDER"  # noqa: S105
    TOKEN_OTHER_USER = "TOKEN_OTHER_USER"  # noqa: S105
    TOKEN_OTHER_PAYMENT = "TOKEN_OTHER_PAYMENT"  # noqa: S105
    NOT_FOUND = "NOT_FOUND"
    ORDER_UNKNOWN = "ORDER_UNKNOWN"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    BODY_TIMEOUT = "BODY_TIMEOUT"
    CONSULT_CHANGED = "CONSULT_CHANGED"
    ORDER_BUSY = "ORDER_BUSY"
    IN_FLIGHT = "IN_FLIGHT"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    INVALID = "INVALID"
    KEY_REUSED = "KEY_REUSED"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    INTERNAL = "INTERNAL"
    PAYMENTS_NOT_CONFIGURED = "PAYMENTS_NOT_CONFIGURED"
    NOT_READY = "NOT_READY"
    OVERLOADED = "OVERLOADED"
    REQUIRED_SOURCE_UNAVAILABLE = "REQUIRED_SOURCE_UNAVAILABLE"
    CHECK_UNAVAILABLE = "CHECK_UNAVAILABLE"
    ENGINE_UNAVAILABLE = "ENGINE_UNAVAILABLE"


STATUS_AND_TITLE: dict[ProblemCode, tuple[int, str]] = {
    ProblemCode.MALFORMED: (400, "The request cannot be read"),
    ProblemCode.UNAUTHENTICATED: (401, "Who asks is not known"),
    ProblemCode.RISK_REJECTED: (402, "The payment is refused"),
    ProblemCode.FORBIDDEN: (403, "Who asks may not do this"),
    ProblemCode.TOKEN_MALFORMED: (403, "This is no token of ours"),
    ProblemCode.TOKEN_TAMPERED: (403, "The token is not as it was signed"),
    ProblemCode.TOKEN_UNKNOWN_KEY: (403, "The token is signed by a key that is not, or no longer, accepted"),
    ProblemCode.TOKEN_WRONG_TYPE: (403, "The token is of another kind"),
    ProblemCode.TOKEN_EXPIRED: (403, "The token has expired"),
    ProblemCode.TOKEN_OTHER_ORDER: (403, "The token is of another order"),
    ProblemCode.TOKEN_OTHER_USER: (403, "The token is of another user"),
    ProblemCode.TOKEN_OTHER_PAYMENT: (403, "The token is of another payment"),
    ProblemCode.NOT_FOUND: (404, "There is nothing here"),
    ProblemCode.ORDER_UNKNOWN: (404, "There is no such order"),
    ProblemCode.METHOD_NOT_ALLOWED: (405, "Not with this method"),
    ProblemCode.BODY_TIMEOUT: (408, "The body took too long"),
    ProblemCode.CONSULT_CHANGED: (409, "What was agreed to has changed"),
    ProblemCode.ORDER_BUSY: (409, "Another payment is under way for this order"),
    ProblemCode.IN_FLIGHT: (409, "The same request is under way"),
    ProblemCode.TOO_LARGE: (413, "The body is too large"),
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: (415, "The body is not JSON"),
    ProblemCode.INVALID: (422, "The request breaks the contract"),
    ProblemCode.KEY_REUSED: (422, "The key belongs to another payment"),
    ProblemCode.HEADERS_TOO_LARGE: (431, "The headers are too large"),
    ProblemCode.INTERNAL: (500, "This is our fault"),
    ProblemCode.PAYMENTS_NOT_CONFIGURED: (501, "No payments here"),
    ProblemCode.NOT_READY: (503, "Not ready"),
    ProblemCode.OVERLOADED: (503, "Too much to do"),
    ProblemCode.REQUIRED_SOURCE_UNAVAILABLE: (503, "A required source did not answer"),
    ProblemCode.CHECK_UNAVAILABLE: (503, "A check could not be made"),
    ProblemCode.ENGINE_UNAVAILABLE: (503, "The payment engine cannot be asked"),
}


class FieldProblem(Struct, frozen=True):
    """What is wrong with one field. `field` is its path, `amount.value`; empty for the body as a whole. Or it is a header's name."""

    field: str
    code: str
    message: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """An RFC 9457 problem document. `sources`: reports of the sources that were asked, where their silence is the problem;
    `silent`: whose, by name, which may also be one that no consultation asks.

    `payment_id`: of the payment that is in the way. `changes` since what the payer agreed to, with a fresh `consultation` to choose from.
    """

    type: str
    title: str
    status: int
    code: ProblemCode
    detail: str
    errors: tuple[FieldProblem, ...] = ()
    sources: tuple[SourceReport, ...] = ()
    payment_id: str | None = None
    changes: tuple[Change, ...] = ()
    consultation: Consultation | None = None
    silent: tuple[str, ...] = ()


def make_problem(
    code: ProblemCode,
    detail: str,
    errors: tuple[FieldProblem, ...] = (),
    sources: tuple[SourceReport, ...] = (),
    payment_id: str | None = None,
    changes: tuple[Change, ...] = (),
    consultation: Consultation | None = None,
    silent: tuple[str, ...] = (),
) -> Problem:
    status, title = STATUS_AND_TITLE[code]
    return Problem(
        f"urn:cashier:problem:{code.value}",
        title,
        status,
        code,
        detail,
        errors,
        sources,
        payment_id,
        changes,
        consultation,
        silent,
    )


Headers = tuple[tuple[bytes, bytes], ...]
PROBLEM_TYPE = (b"content-type", b"application/problem+json")
_encoder = msgspec.json.Encoder()


def encode_problem(what: Problem) -> bytes:
    return _encoder.encode(what)


class RequestRefused(Exception):
    """A request that gets a problem for an answer, of which the keywords are parts. `headers` go with it."""

    def __init__(
        self,
        code: ProblemCode,
        detail: str,
        *,
        errors: tuple[FieldProblem, ...] = (),
        sources: tuple[SourceReport, ...] = (),
        payment_id: str | None = None,
        changes: tuple[Change, ...] = (),
        consultation: Consultation | None = None,
        silent: tuple[str, ...] = (),
        headers: Headers = (),
    ) -> None:
        super().__init__(detail)
        self.problem = make_problem(code, detail, errors, sources, payment_id, changes, consultation, silent)
        self.headers = headers


def invalid(*faults: FieldProblem) -> RequestRefused:
    """INVALID, in words too: each fault by the name of its field."""
    return RequestRefused(
        ProblemCode.INVALID,
        "; ".join(f"{fault.field or 'the body'} {fault.message}" for fault in faults),
        errors=faults,
    )
