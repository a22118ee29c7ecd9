"""Outcomes of an upstream call that brought no usable answer.

A leaf: any module may import it, and it imports nothing of the project. `Missing` is a value: the
domain sees it in the place of a fact and shapes the answer with it. `SourceError` is what `wire`
and `sources` report; the fan-out turns it into a `Missing`, and it goes no further.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct


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


class Missing(Struct, frozen=True):
    """The placeholder of a fact that did not arrive. `source`: the source's configured name."""

    source: str
    cause: MissingCause


class SourceError(Exception):
    """An upstream call without a usable answer. Raised or passed as a value; ends in the fan-out.

    `detail` is for operators. It never holds a body, an amount or any data of the payer. `sent`:
    the upstream may have received the request and acted on it. False only if that is certain not to
    have happened. `elsewhere`: the connection may be at fault, and another one can be used.
    `final`: no other attempt may be made, because this one sent what must not be sent twice.
    """

    cause: ClassVar[MissingCause]
    sent: bool = True
    elsewhere: bool = False
    final: bool = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def missing(self, source: str) -> Missing:
        return Missing(source, self.cause)


class Unreachable(SourceError):
    """No complete answer: no connection, a broken connection, or a 5xx other than an overload."""

    cause = MissingCause.UNREACHABLE

    def __init__(self, detail: str, *, sent: bool = True) -> None:
        super().__init__(detail)
        self.sent = sent


class TimedOut(Unreachable):
    """No answer in time. The answer may still be on its way, and the upstream may still act."""

    cause = MissingCause.TIMEOUT


class Overloaded(SourceError):
    """The upstream asked for less load: 429 or 503. `retry_after_s`: from its header, if set."""

    cause = MissingCause.OVERLOADED

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Garbled(SourceError):
    """An answer that breaks protocol or contract: framing, bounds, JSON, types or status."""

    cause = MissingCause.GARBLED


class WrongIdentity(Garbled):
    """A well-formed answer about another user, order, merchant or payment. Always discarded."""

    cause = MissingCause.WRONG_IDENTITY


class NotAsked(SourceError):
    """No call was made, by our own decision. The subclass names the decision."""

    sent = False


class Shed(NotAsked):
    """The source has as many of our calls as it can bear, or this process is overloaded."""

    cause = MissingCause.SHED


class BreakerOpen(NotAsked):
    """The source failed too often recently and is not called for a while."""

    cause = MissingCause.BREAKER_OPEN


class Skipped(NotAsked):
    """Too little time was left for an answer."""

    cause = MissingCause.SKIPPED


class Unanswered(Struct, frozen=True):
    """A request without a credible answer. It does not mean that the request failed."""

    error: SourceError
