"""The protocol of a second level (a store of answers shared by all workers) and its values.

No network.

A store keeps answers as they came. The reader parses and checks them again: a store is not trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypeAlias

from msgspec import Struct

from cashier.fanout.ask import PendingCall


class CachedAnswer(Struct, frozen=True):
    """An upstream's answer as it came. `not_found`: it said that there is none.

    `age_ms`: since the start of its call.
    """

    not_found: bool
    body: bytes
    age_ms: int


# Takes the answer, None for a miss or a fault; and the version of its key now, None if unknown.
OnRead: TypeAlias = Callable[[CachedAnswer | None, bytes | None], None]


class SecondLevel(Protocol):
    """Its loss or slowness costs misses, never an error and never a wait beyond its own bound."""

    @property
    def reachable(self) -> bool:
        """Whether it answers now."""

    @property
    def coherent(self) -> bool:
        """Whether invalidations of other workers reach this one now."""

    def get(self, source: str, key: str, on_read: OnRead) -> PendingCall:
        """Read an answer, and the version that a later `put` needs.

        `on_read` is called exactly once, after this returns, unless the read is abandoned.
        """

    def put(self, source: str, key: str, answer: CachedAnswer, ttl_s: float, version: bytes) -> None:
        """Queue a write and return at once. It may be dropped.

        It is dropped if the key was invalidated since `version` was read, before the call.
        `ttl_s` counts from the start of the call, like `age_ms`.
        """

    def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
        """Queue the invalidation of one key, or of all keys with a prefix, in every worker.

        Returns at once.
        """

    async def adrop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> bool:
        """As `drop`. Wait, within a bound, until every worker has been sent it; return whether."""


class Reach(StrEnum):
    """The workers that an invalidation reached: all that share a store, or the called one."""

    ALL_WORKERS = "ALL_WORKERS"
    THIS_WORKER = "THIS_WORKER"


class Invalidated(Struct, frozen=True):
    """The result of an invalidation. `dropped`: entries dropped in the called worker."""

    source: str
    dropped: int
    reach: Reach


class SourceUnknown(LookupError):
    """No source has this name. `known`: the existing names."""

    def __init__(self, source: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no source {source!r}; known are {', '.join(known)}")
        self.known = known
