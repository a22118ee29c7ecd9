"""Outcomes of an upstream call that brought no usable answer.

A leaf: any module may import it, and it imports nothing of the project. `Missing` is a value: the
domain sees it in the place of a fact and shapes the answer with it. `SourceError` is what `wire`
and `sources` report; the fan-out turns it into a `Missing`, and it goes no further.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import ClassVar

from msgspec import Struct

# Adapters, and functions of the embedding program, write texts of their own, which may quote an
# answer: numbers as long as that of a telephone, a card in its groups, mail addresses.
_PERSONAL = re.compile(r"[0-9]{9,}|[0-9]{4}(?:[ -][0-9]{4}){2,}[0-9]*|[^\s@]{1,64}@[^\s@]{1,255}")
_LONGEST_DETAIL = 1_000


class MissingCause(StrEnum):
    TIMEOUT = "TIMEOUT"
    UNREACHABLE = "UNREACHABLE"
    OVERLOADED = "OVERLOADED"
    GARBLED = "GARBLED"
    WRONG_IDENTITY = "WRONG_IDENTITY"
    SHED = "SHED"
    BREAKER_OPEN = "BREAKER_OPEN"
    SKIPPED = "SKIPPED"
    # The answer may still arrive.
    PENDING = "PENDING"
    # The configuration leaves the source out: it is not called, and its silence means nothing.
    NOT_CONFIGURED = "NOT_CONFIGURED"


class FailureReason(StrEnum):
    """Why an upstream call brought no usable answer: a closed set for metrics, logs and records.

    The free text beside it, `SourceError.detail`, says more: the address, the field, the status.
    """

    # No connection.
    DNS = "DNS"
    REFUSED = "REFUSED"
    TLS = "TLS"
    CONNECT_TIMEOUT = "CONNECT_TIMEOUT"
    # No route, no socket file, or no connection for another reason.
    UNREACHABLE = "UNREACHABLE"
    # No complete answer.
    TIMEOUT = "TIMEOUT"
    RESET = "RESET"
    # A status in the place of an answer.
    STATUS_2XX = "STATUS_2XX"
    STATUS_3XX = "STATUS_3XX"
    STATUS_4XX = "STATUS_4XX"
    STATUS_5XX = "STATUS_5XX"
    OVERLOADED = "OVERLOADED"
    # 401 or 403: it does not accept our credential, or wants one.
    UNAUTHORIZED = "UNAUTHORIZED"
    # A 404 that the service itself did not give: its path in the URL may be wrong.
    WRONG_PATH = "WRONG_PATH"
    # An answer that cannot be used.
    NOT_JSON = "NOT_JSON"
    FIELD = "FIELD"
    WRONG_IDENTITY = "WRONG_IDENTITY"
    # Not signed, or not by the service: it may be forged.
    SIGNATURE = "SIGNATURE"
    # Framing, bounds, encodings: no HTTP/1.1 answer as agreed.
    PROTOCOL = "PROTOCOL"
    # An adapter, or a function of the embedding program, failed by itself.
    ADAPTER = "ADAPTER"
    # Not called, because there is no credential to call with: no token was issued yet.
    NO_CREDENTIAL = "NO_CREDENTIAL"
    # Not called, by our own decision.
    NO_TIME = "NO_TIME"
    BREAKER_OPEN = "BREAKER_OPEN"
    AT_LIMIT = "AT_LIMIT"
    QUEUE_FULL = "QUEUE_FULL"
    DIMMED = "DIMMED"
    # The last answers on new connections were broken, so no further one is opened for now.
    BACKING_OFF = "BACKING_OFF"
    # A needed answer of another source is missing, or this one could change nothing any more.
    NOT_NEEDED = "NOT_NEEDED"
    # This process stops.
    CLOSED = "CLOSED"


class Missing(Struct, frozen=True):
    """The placeholder of a fact that did not arrive. `source`: the source's configured name."""

    source: str
    cause: MissingCause


class SourceError(Exception):
    """An upstream call without a usable answer. Raised or passed as a value; ends in the fan-out.

    `reason` and `detail` are for operators: a code, and its particulars. `detail` never holds a
    body, an amount or any data of the payer; what looks like a number or address of a person is
    replaced. `sent`: the upstream may have received the request and acted on it. False only if that
    is certain not to have happened. `elsewhere`: the connection may be at fault, and another one
    can be used. `final`: no other attempt may be made, because this one sent what must not be sent
    twice.
    """

    cause: ClassVar[MissingCause]
    # Of a class: what its errors mean unless the place that raises one knows better.
    reason: FailureReason
    sent: bool = True
    elsewhere: bool = False
    final: bool = False
    text_is_for_operators = True

    def __init__(self, detail: str, *, reason: FailureReason | None = None) -> None:
        text = _PERSONAL.sub("…", str(detail)[:_LONGEST_DETAIL])
        super().__init__(text)
        self.detail = text
        if reason is not None:
            self.reason = reason

    def missing(self, source: str) -> Missing:
        return Missing(source, self.cause)


class Unreachable(SourceError):
    """No complete answer: no connection, a broken connection, or a 5xx other than an overload."""

    cause = MissingCause.UNREACHABLE
    reason = FailureReason.UNREACHABLE

    def __init__(self, detail: str, *, sent: bool = True, reason: FailureReason | None = None) -> None:
        super().__init__(detail, reason=reason)
        self.sent = sent


class TimedOut(Unreachable):
    """No answer in time. The answer may still be on its way, and the upstream may still act."""

    cause = MissingCause.TIMEOUT
    reason = FailureReason.TIMEOUT


class Overloaded(SourceError):
    """The upstream asked for less load: 429 or 503. `retry_after_s`: from its header, if set."""

    cause = MissingCause.OVERLOADED
    reason = FailureReason.OVERLOADED

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Garbled(SourceError):
    """An answer that breaks protocol or contract: framing, bounds, JSON, types or status."""

    cause = MissingCause.GARBLED
    reason = FailureReason.PROTOCOL


class WrongIdentity(Garbled):
    """A well-formed answer about another user, order, merchant or payment. Always discarded."""

    cause = MissingCause.WRONG_IDENTITY
    reason = FailureReason.WRONG_IDENTITY


class NotAsked(SourceError):
    """No call was made, by our own decision. The subclass names the decision."""

    sent = False


class Shed(NotAsked):
    """The source has as many of our calls as it can bear, or this process is overloaded."""

    cause = MissingCause.SHED
    reason = FailureReason.AT_LIMIT


class BreakerOpen(NotAsked):
    """The source failed too often recently and is not called for a while."""

    cause = MissingCause.BREAKER_OPEN
    reason = FailureReason.BREAKER_OPEN


class Skipped(NotAsked):
    """Too little time was left for an answer."""

    cause = MissingCause.SKIPPED
    reason = FailureReason.NO_TIME


class Unanswered(Struct, frozen=True):
    """A request without a credible answer. It does not mean that the request failed."""

    error: SourceError
