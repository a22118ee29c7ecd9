"""The ask (one request of a plan to one source), its callbacks, and the report of how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct

# Values known by name: the caller's inputs at first, later also values that answers reveal.
Known = Mapping[str, Any]


class Importance(StrEnum):
    """The effect of a missing answer.

    REQUIRED: no result without it. GATING: it may refuse. ENRICHING: it may only improve.
    """

    REQUIRED = "REQUIRED"
    GATING = "GATING"
    ENRICHING = "ENRICHING"


class SourceStatus(StrEnum):
    """How a source fared in one consultation. PENDING appears only in snapshots before the end."""

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
    """A call in progress."""

    def abandon(self) -> None:
        """Stop waiting: `done` will not be called. Idempotent, also after `done`."""


class AskCall(PendingCall, Protocol):
    """The call that an ask waits for."""

    def time_out(self) -> None:
        """As `abandon`, because the ask's timeout is over. Only the ask knows when it began."""
        self.abandon()


class OnOutcome(Protocol):
    """Receives an outcome. Called at most once per start, possibly before `start` returns."""

    def __call__(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        """`outcome`: the answer, or the `SourceError` in its place."""


class Start(Protocol):
    """Starts a request to one source. Does not raise for upstream or network faults."""

    def __call__(self, known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall | None:
        """Return the call to abandon, or None if `done` was called already.

        `budget_ms`, at least 1: how long the ask waits. `call_headers` go to the wire unread.
        """


class Fallback(Protocol):
    """Looks up a substitute for an answer that did not come."""

    def __call__(self, known: Known) -> tuple[Any, int] | None:
        """Return an older answer to the same request and its age in ms; None if there is none."""


class CurrentTimeout(Protocol):
    """A timeout that may change from one consultation to the next."""

    @property
    def timeout_ms(self) -> int:
        """At least 1, and never above the ask's own."""


class Unasked(Struct, frozen=True):
    """The answer that counts where there is nothing to ask about."""

    answer: Any


class Ask(Struct, frozen=True):
    """One request of a plan: the names it needs, how it starts, and the names its answer gives.

    `reveal` maps the answer to values for the names in `gives`. `timeout_ms` is the upper bound,
    `current_timeout` the learned value below it. `fallback` applies if the ask fails, times out,
    or is skipped for lack of time. `leading`: before it has ended, a snapshot is of no use.
    `unasked` applies if a need is neither known nor given by any ask; without it the ask fails.
    """

    name: str
    importance: Importance
    needs: tuple[str, ...]
    timeout_ms: int
    start: Start
    gives: tuple[str, ...] = ()
    reveal: Callable[[Any], dict[str, Any]] | None = None
    fallback: Fallback | None = None
    current_timeout: CurrentTimeout | None = None
    leading: bool = False
    unasked: Unasked | None = None


class SourceReport(Struct, frozen=True, rename={"importance": "class"}):
    """How one ask ended.

    `started_ms` counts from the start of the consultation, `elapsed_ms` from the ask's start.
    """

    name: str
    importance: Importance
    status: SourceStatus
    started_ms: float
    elapsed_ms: float
    age_ms: int
