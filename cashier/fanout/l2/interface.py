"""What is asked of a second level: a store of upstreams' answers that all workers share. Values and a protocol; no store, no network.

An answer is kept as it came, so whoever takes it reads and checks it again: nothing is believed because a store said so.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from cashier.fanout.ask import PendingCall


class CachedAnswer(Struct, frozen=True):
    """An upstream's answer as it came. `not_found`: it said that there is none. `age_ms`: since the call began that brought it."""

    not_found: bool
    body: bytes
    age_ms: int


class SecondLevel(Protocol):
    """Its loss or slowness costs misses, never an error and never a wait beyond its own bound."""

    @property
    def reachable(self) -> bool:
        """Whether it answers now, and other workers hear of what is dropped."""

    def get(self, source: str, key: str, found: Callable[[CachedAnswer | None], None]) -> PendingCall:
        """`found` is called exactly once, later than this returns, unless abandoned first: None for a miss and for any trouble."""

    def put(self, source: str, key: str, kept: CachedAnswer, ttl_s: float) -> None:
        """Returns at once; written behind, or not at all. `ttl_s` counts like `CachedAnswer.age_ms`, from the beginning of the call."""

    def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
        """Delete there, and tell every worker: one key, or all that begin with `prefix`. Returns at once; done as soon as it can be."""


class Reach(StrEnum):
    """Who is told of an invalidation: every worker that shares a second level, or nobody but the worker that was asked."""

    ALL_WORKERS = "ALL_WORKERS"
    THIS_WORKER = "THIS_WORKER"


class Invalidated(Struct, frozen=True):
    """What an invalidation did. `dropped`: how many entries went in the worker that was asked; what others had is not counted."""

    source: str
    dropped: int
    reach: Reach


class SourceUnknown(LookupError):
    """Nothing is asked, and nothing kept, under this name. `known`: the names that there are."""

    def __init__(self, source: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no source {source!r}; known are {', '.join(known)}")
        self.known = known
