"""Problem responses as RFC 9457 documents. Defines the status and title of every problem code.

`code` is stable and meant for programs, `detail` for people. No value that a caller sent is
repeated, because free text may be a card number.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec import Struct

from cashier.consultation.answer import Consultation
from cashier.domain.next_action import Action
from cashier.domain.offer_diff import Change
from cashier.domain.order import Instant
from cashier.fanout.ask import SourceReport
from cashier.web.health import ReadinessReport


class ProblemCode(StrEnum):
    MALFORMED = "MALFORMED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RISK_REJECTED = "RISK_REJECTED"
    FORBIDDEN = "FORBIDDEN"
    CALLER_MISMATCH = "CALLER_MISMATCH"
    PAYER_REQUIRED = "PAYER_REQUIRED"
    ORIGIN_NOT_ALLOWED = "ORIGIN_NOT_ALLOWED"
    TOKEN_MALFORMED = "TOKEN_MALFORMED"  # noqa: S105 - names of problems, not tokens
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
    NOT_RESUMABLE = "NOT_RESUMABLE"
    NOT_RESENDABLE = "NOT_RESENDABLE"
    IN_FLIGHT = "IN_FLIGHT"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    INVALID = "INVALID"
    KEY_REUSED = "KEY_REUSED"
    RATE_LIMITED = "RATE_LIMITED"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    INTERNAL = "INTERNAL"
    PAYMENTS_NOT_CONFIGURED = "PAYMENTS_NOT_CONFIGURED"
    PAGES_NOT_CONFIGURED = "PAGES_NOT_CONFIGURED"
    NOT_READY = "NOT_READY"
    OVERLOADED = "OVERLOADED"
    REQUIRED_SOURCE_UNAVAILABLE = "REQUIRED_SOURCE_UNAVAILABLE"
    CHECK_UNAVAILABLE = "CHECK_UNAVAILABLE"
    STATUS_UNAVAILABLE = "STATUS_UNAVAILABLE"
    ENGINE_UNAVAILABLE = "ENGINE_UNAVAILABLE"


STATUS_AND_TITLE: dict[ProblemCode, tuple[int, str]] = {
    ProblemCode.MALFORMED: (400, "Malformed request"),
    ProblemCode.UNAUTHENTICATED: (401, "Authentication required"),
    ProblemCode.RISK_REJECTED: (402, "Payment rejected"),
    ProblemCode.FORBIDDEN: (403, "Forbidden"),
    ProblemCode.CALLER_MISMATCH: (403, "Not the caller's own"),
    ProblemCode.PAYER_REQUIRED: (403, "Only for the payer"),
    ProblemCode.ORIGIN_NOT_ALLOWED: (403, "Origin not allowed"),
    ProblemCode.TOKEN_MALFORMED: (403, "Malformed token"),
    ProblemCode.TOKEN_TAMPERED: (403, "Invalid token signature"),
    ProblemCode.TOKEN_UNKNOWN_KEY: (403, "Unknown token key"),
    ProblemCode.TOKEN_WRONG_TYPE: (403, "Wrong token type"),
    ProblemCode.TOKEN_EXPIRED: (403, "Token expired"),
    ProblemCode.TOKEN_OTHER_ORDER: (403, "Token belongs to another order"),
    ProblemCode.TOKEN_OTHER_USER: (403, "Token belongs to another user"),
    ProblemCode.TOKEN_OTHER_PAYMENT: (403, "Token belongs to another payment"),
    ProblemCode.NOT_FOUND: (404, "Not found"),
    ProblemCode.ORDER_UNKNOWN: (404, "Unknown order"),
    ProblemCode.METHOD_NOT_ALLOWED: (405, "Method not allowed"),
    ProblemCode.BODY_TIMEOUT: (408, "Request body timed out"),
    ProblemCode.CONSULT_CHANGED: (409, "Offer changed"),
    ProblemCode.ORDER_BUSY: (409, "Another payment is in progress for this order"),
    ProblemCode.NOT_RESUMABLE: (409, "The payment cannot be resumed"),
    ProblemCode.NOT_RESENDABLE: (409, "The code is not sent again"),
    ProblemCode.IN_FLIGHT: (409, "The same request is in progress"),
    ProblemCode.TOO_LARGE: (413, "Request body too large"),
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: (415, "Unsupported media type"),
    ProblemCode.INVALID: (422, "Invalid request"),
    ProblemCode.KEY_REUSED: (422, "Idempotency key reused"),
    ProblemCode.RATE_LIMITED: (429, "Too many requests"),
    ProblemCode.HEADERS_TOO_LARGE: (431, "Request headers too large"),
    ProblemCode.INTERNAL: (500, "Internal error"),
    ProblemCode.PAYMENTS_NOT_CONFIGURED: (501, "Payments not configured"),
    ProblemCode.PAGES_NOT_CONFIGURED: (501, "Pages not configured"),
    ProblemCode.NOT_READY: (503, "Not ready"),
    ProblemCode.OVERLOADED: (503, "Overloaded"),
    ProblemCode.REQUIRED_SOURCE_UNAVAILABLE: (503, "Required source unavailable"),
    ProblemCode.CHECK_UNAVAILABLE: (503, "Required check unavailable"),
    ProblemCode.STATUS_UNAVAILABLE: (503, "Payment status unavailable"),
    ProblemCode.ENGINE_UNAVAILABLE: (503, "Payment engine unavailable"),
}


class FieldProblem(Struct, frozen=True):
    """One invalid field: a path such as `amount.value`, a header name, or empty for the body."""

    field: str
    code: str
    message: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """An RFC 9457 problem document.

    `errors`: the invalid fields. `sources`: reports of all sources that were asked, if a missing
    response is the problem; `silent`: names of the services whose response is missing.
    `payment_id`: the payment that is in progress instead; `next_action`, `expires_at`: what its
    payer may do, and until when. `changes`: what differs from the accepted offer; `consultation`: a
    fresh offer to choose from. `readiness`: the state of a service that is not ready. `message`:
    for the payer, if a payer may meet this problem; in the language of the title.
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
    message: str | None = None
    next_action: Action | None = None
    expires_at: Instant | None = None
    readiness: ReadinessReport | None = None


def make_problem(
    code: ProblemCode,
    detail: str,
    errors: tuple[FieldProblem, ...] = (),
    sources: tuple[SourceReport, ...] = (),
    payment_id: str | None = None,
    changes: tuple[Change, ...] = (),
    consultation: Consultation | None = None,
    silent: tuple[str, ...] = (),
    next_action: Action | None = None,
    expires_at: datetime | None = None,
    readiness: ReadinessReport | None = None,
) -> Problem:
    status, title = STATUS_AND_TITLE[code]
    return Problem(
        type=f"urn:cashier:problem:{code.value}",
        title=title,
        status=status,
        code=code,
        detail=detail,
        errors=errors,
        sources=sources,
        payment_id=payment_id,
        changes=changes,
        consultation=consultation,
        silent=silent,
        next_action=next_action,
        expires_at=expires_at,
        readiness=readiness,
    )


Headers = tuple[tuple[bytes, bytes], ...]
PROBLEM_TYPE = (b"content-type", b"application/problem+json")
_encoder = msgspec.json.Encoder()
_BEFORE_CODE = b'"type":"urn:cashier:problem:'


def encode_problem(problem: Problem) -> bytes:
    return _encoder.encode(problem)


def problem_code_in(response: bytes) -> str | None:
    """The code of the encoded problem in a part of a response; None if there is none."""
    before = response.find(_BEFORE_CODE)
    if before < 0:
        return None
    begin = before + len(_BEFORE_CODE)
    return response[begin : response.find(b'"', begin)].decode("ascii")


class RequestRefused(Exception):
    """Ends a request with a problem response. `headers` are added to the response."""

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
        next_action: Action | None = None,
        expires_at: datetime | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(detail)
        self.problem = make_problem(
            code, detail, errors, sources, payment_id, changes, consultation, silent, next_action, expires_at
        )
        self.headers = headers


def invalid(*errors: FieldProblem) -> RequestRefused:
    """An INVALID problem, whose detail names each invalid field."""
    return RequestRefused(
        ProblemCode.INVALID,
        "; ".join(f"{error.field or 'the body'} {error.message}" for error in errors),
        errors=errors,
    )
