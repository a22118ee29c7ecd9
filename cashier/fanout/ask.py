"""Ask: one question of a plan, what it needs to be known, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct

# What is known by name: the caller's inputs at first, later also what answers reveal.
Known = Mapping[str, Any]


class Importance(StrEnum):
    """What a silent source costs. REQUIRED: there is no answer without it. GATING: it may refuse. ENRICHING: it may only improve."""

    REQUIRED = "REQUIRED"
    GATING = "GATING"
    ENRICHING = "ENRICHING"


class SourceStatus(StrEnum):
    """How a source did in one consultation. PENDING is never the last word: it may still answer, and another answer will say so."""

    FRESH = "FRESH"
    CACHED = "CACHED"
    STALE = "STALE"
    TIMEOUT = "TIMEOUT"
    ERROR = "ERROR"
    GARBLED = "GARBLED"
    WRONG_IDENTITY = "WRONG_IDENTITY"
    SHED = "SHED"
    BREAKER_OPEN = "BREAKER_OPEN"
    SKIPPED = "SKIPPED"
    PENDING = "PENDING"


class PendingCall(Protocol):
    """A call under way."""

    def abandon(self) -> None:
        """Nobody waits any more: `done` will not be called. Idempotent, also after `done`."""


class OnOutcome(Protocol):
    """Where an outcome goes. Called at most once per start, possibly before `start` returns."""

    def __call__(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        """`outcome` is the answer, or the `SourceError` in its place."""


class Start(Protocol):
    """Begin asking one source. Does not raise for what an upstream does."""

    def __call__(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> PendingCall | None:
        """`budget_ms`: how long the asker will wait, at least 1. `call_headers` is handed through to the wire, unread here.

        None where nothing is left to abandon, because `done` was called.
        """


class Fallback(Protocol):
    """What can be said in the place of an answer that does not come."""

    def __call__(self, known: Known) -> tuple[Any, int] | None:
        """An older answer to the same question and its age in ms; None where there is none, or none young enough."""


class TimeoutSource(Protocol):
    """How long an answer is waited for now. It may change from one consultation to the next."""

    @property
    def timeout_ms(self) -> int:
        """At least 1, and never above the ask's own."""


class Ask(Struct, frozen=True):
    """One question: what must be known before it can be asked, and what its answer makes known for others.

    `reveal` takes the answer and returns what it makes known, by the names in `gives`. `timeout_ms` is the longest it may take, `pace`
    what is learned below that. `instead` is asked when it comes to nothing: failed, timed out, cut off by the end or never put for lack
    of time.
    """

    name: str
    importance: Importance
    needs: tuple[str, ...]
    timeout_ms: int
    start: Start
    gives: tuple[str, ...] = ()
    reveal: Callable[[Any], dict[str, Any]] | None = None
    instead: Fallback | None = None
    pace: TimeoutSource | None = None


class SourceReport(Struct, frozen=True, rename={"importance": "class"}):
    """What became of one ask. `started_ms` counts from the beginning of the consultation, `elapsed_ms` from the start of this call."""

    name: str
    importance: Importance
    status: SourceStatus
    started_ms: float
    elapsed_ms: float
    age_ms: int
