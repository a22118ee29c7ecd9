"""A source without any mechanism."""

from __future__ import annotations

from typing import Any

from cashier.fanout.ask import AskCall, Known, OnOutcome, Start
from cashier.fanout.upstream_protocol import Upstream, UpstreamCall


class UnguardedCall(AskCall):
    __slots__ = ("_call",)

    def __init__(self, call: UpstreamCall) -> None:
        self._call = call

    def abandon(self) -> None:
        self._call.abandon()


def unguarded(upstream: Upstream) -> Start:
    """Call the upstream without any mechanism."""
    call = upstream.call

    def start(known: Known, call_headers: Any, budget_ms: int, done: OnOutcome) -> AskCall:
        def on_answer(outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
            done(outcome)

        return UnguardedCall(call(known, call_headers, budget_ms, on_answer))

    return start
