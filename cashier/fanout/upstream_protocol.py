"""The upstream protocol: one source as the mechanisms see it, with one or more addresses."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any, Protocol

from cashier.fanout.ask import Known, PendingCall


class OnAnswer(Protocol):
    """Receives the outcome of an upstream call."""

    def __call__(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        """`outcome`: the answer, or the `SourceError` in its place.

        `not_found`: the answer is that there is none.

        `body`: the answer as `Upstream.parse_stored` takes it; None if it cannot be stored outside
        of this process.
        """


class UpstreamCall(PendingCall, Protocol):
    """One call in progress."""

    @property
    def address_index(self) -> int:
        """The address it was sent to, or is queued for: an index into the source's addresses.

        Not negative when `call` returns; negative once its address is no longer one of them.
        """


class UserCall:
    """A call that runs the user's code. `context`: in which it was made.

    What belongs to it later runs there: the callbacks of wires and timers may have the context of
    another call.
    """

    __slots__ = ("context",)

    def __init__(self) -> None:
        self.context = copy_context()


class CautiousCall(UserCall):
    """A call whose requests are made by the user's code, so that some must not be sent twice.

    `repeatable`: only GETs were sent so far, so a second call may be made beside this one.
    `beside_another`: this is that second call, and must send nothing but GETs.
    """

    __slots__ = ("beside_another", "repeatable")

    def __init__(self) -> None:
        super().__init__()
        self.repeatable = True
        self.beside_another = False


class Upstream(Protocol):
    """One source. Never raises for upstream or network faults."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The names of its addresses, for operators. See `GuardedSource.set_addresses`."""

    def call(
        self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0
    ) -> UpstreamCall:
        """Start a call.

        `on_answer` is called exactly once, after this returns, unless the call is abandoned first.

        `avoid` has one bit per address to leave out; it is ignored if it excludes all of them.
        """

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        """Parse a stored body with all checks of a new answer.

        Returns the answer, or a `SourceError`.
        """
