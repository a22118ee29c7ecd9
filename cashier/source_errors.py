"""How a question to an upstream ends when it does not end in an answer.

A leaf: everybody may import it, it imports nothing of the project. Two vocabularies live here. `Missing` is a value: the domain
sees it in the place of a fact and shapes the answer with it. `SourceError` is what a wire reports; it becomes a `Missing` in the
fan-out and goes no further.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct


class MissingCause(StrEnum):
    """Why a fact is missing."""

    TIMEOUT = "TIMEOUT"
    UNREACHABLE = "UNREACHABLE"
    OVERLOADED = "OVERLOADED"
    GARBLED = "GARBLED"
    WRONG_IDENTITY = "WRONG_IDENTITY"
    SHED = "SHED"
    BREAKER_OPEN = "BREAKER_OPEN"
    SKIPPED = "SKIPPED"
    PENDING = "PENDING"  # it has not come yet, and may


class Missing(Struct, frozen=True):
    """The place of a fact that did not come.

    `source` is the source's name in the configuration.
    """

    source: str
    why: MissingCause


class SourceError(Exception):
    """An upstream call that brought no usable answer. Handed on as a value or raised; ends in the fan-out.

    `detail` is for operators. It never holds a body, an amount or anything of the payer's. `sent`: the upstream may have received the
    request, and may have done what it asks for. False only where that is certain not to be so.
    """

    why: ClassVar[MissingCause]
    sent: bool = True

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def missing(self, source: str) -> Missing:
        return Missing(source, self.why)


class Unreachable(SourceError):
    """No whole answer: no connection, a connection that broke, or a 5xx that is not an overload."""

    why = MissingCause.UNREACHABLE

    def __init__(self, detail: str, *, sent: bool = True) -> None:
        super().__init__(detail)
        self.sent = sent


class TimedOut(Unreachable):
    """No answer in its time. It may still be on its way, and so may what was asked for."""

    why = MissingCause.TIMEOUT


class Overloaded(SourceError):
    """The upstream asked for less: 429 or 503. `retry_after_s` is what it said, if it did."""

    why = MissingCause.OVERLOADED

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Garbled(SourceError):
    """An answer came that breaks the protocol or the contract: framing, bounds, JSON, types, an unexpected status."""

    why = MissingCause.GARBLED


class WrongIdentity(Garbled):
    """A well-formed answer about another user, order or merchant than was asked for. Thrown away, always."""

    why = MissingCause.WRONG_IDENTITY


class NotAsked(SourceError):
    """No call was made, by our own decision. Which one, the subclass says."""

    sent = False


class Shed(NotAsked):
    """The source has as many calls of ours as it bears, or we ourselves have too much to do."""

    why = MissingCause.SHED


class BreakerOpen(NotAsked):
    """It has failed too often of late, and is left alone for a while."""

    why = MissingCause.BREAKER_OPEN


class Skipped(NotAsked):
    """There was not enough time left for it to answer."""

    why = MissingCause.SKIPPED


class Unanswered(Struct, frozen=True):
    """Asked, and nothing heard that can be believed. It says nothing of what was asked about, in particular not that it failed."""

    error: SourceError
