"""Upstream: one source as the mechanisms see it. It may have several places, its addresses, of which one call is made to one."""

from __future__ import annotations

from typing import Any, Protocol

from cashier.fanout.ask import Known, OnOutcome, PendingCall, Start


class OnAnswer(Protocol):
    """Where the outcome of a call goes."""

    def __call__(self, outcome: Any, none: bool = False, body: bytes | None = None) -> None:
        """`outcome`: the answer, or the `SourceError` in its place. `none`: the answer is that there is none.

        `body`: the answer as `Upstream.read` takes it; None where it cannot be kept outside of this process.
        """


class UpstreamCall(PendingCall, Protocol):
    """One call under way."""

    @property
    def place(self) -> int:
        """Where it was sent, or waits to be: an index into `Upstream.places`."""


class Upstream(Protocol):
    """One source. Never raises for what it or a network does."""

    @property
    def places(self) -> tuple[str, ...]:
        """The names of its addresses, for operators."""

    def call(self, known: Known, call_headers: Any, budget_ms: int, heard: OnAnswer, avoid: int = 0) -> UpstreamCall:
        """Ask. `heard` is called exactly once, later than this returns, unless the leg is abandoned first.

        `avoid` has a bit for each place that should be left out; where that would leave none, it is not heeded.
        """

    def read(self, none: bool, body: bytes, known: Known) -> Any:
        """The outcome of a body that was kept, checked again as if it had just come: an answer, or the `SourceError` in its place."""


def unguarded(upstream: Upstream) -> Start:
    """Ask it as it is, without any mechanism."""
    call = upstream.call

    def start(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> PendingCall:
        def heard(outcome: Any, none: bool = False, body: bytes | None = None) -> None:
            done(outcome)

        return call(known, call_headers, budget_ms, heard)

    return start
