"""A scripted source that accepts many keys per call, and a batch over it with recorded outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cashier.fanout.ask import Known
from cashier.fanout.batch import Batch, BatchPolicy, OnBatchOutcomes
from cashier.fanout.upstream_protocol import UpstreamCall
from cashier.source_errors import SourceError
from tests.support.virtual_time import clock_ns, now_ms

Outcomes = Sequence[tuple[Any, bool, bytes | None]] | SourceError


class Call:
    """One call for many keys, as the batch and the test see it."""

    def __init__(
        self, keys: list[str], call_headers: Any, budget_ms: int, on_outcomes: OnBatchOutcomes, avoid: int
    ) -> None:
        self.keys = keys
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.avoid = avoid
        self.on_outcomes = on_outcomes
        self.address_index = 1
        self.started_ms = now_ms()
        self.ended_ms: float | None = None
        self.abandoned = False
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, outcomes: Outcomes | None = None) -> None:
        self.ended_ms = now_ms()
        self.timer = None
        self.on_outcomes(
            [(f"answer to {key}", False, key.encode()) for key in self.keys] if outcomes is None else outcomes
        )

    def abandon(self) -> None:
        self.abandoned = True
        self.ended_ms = now_ms()
        if self.timer is not None:
            self.timer.cancel()


class ScriptedBatchUpstream:
    """A `BatchUpstream` that answers after `after_ms`, None for never.

    `broken_key` makes a call raise.
    """

    addresses = ("first", "second")

    def __init__(self, after_ms: float | None = 10, broken_key: str = "") -> None:
        self.after_ms = after_ms
        self.broken_key = broken_key
        self.calls: list[Call] = []

    def call_many(
        self, keys: Sequence[Known], call_headers: Any, budget_ms: int, on_outcomes: OnBatchOutcomes, avoid: int = 0
    ) -> UpstreamCall:
        texts = [known["key"] for known in keys]
        if self.broken_key in texts:
            raise KeyError("user_id")
        call = Call(texts, call_headers, budget_ms, on_outcomes, avoid)
        self.calls.append(call)
        if self.after_ms is not None:
            loop = asyncio.get_running_loop()
            call.timer = loop.call_at(loop.time() + self.after_ms / 1000, call.answer)
        return call

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return not_found, body, known

    @property
    def sent(self) -> list[tuple[float, str]]:
        """The start and the keys of each call."""
        return [(call.started_ms, "".join(call.keys)) for call in self.calls]


class OutcomeRecorder:
    """The callback of one key. Fails if it is called twice."""

    def __init__(self, key: str, outcomes: dict[str, Any]) -> None:
        self.key = key
        self.outcomes = outcomes

    def __call__(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        assert self.key not in self.outcomes, "called twice"
        self.outcomes[self.key] = outcome


class BatchRig:
    """A batch under test with the outcomes of its keys."""

    def __init__(self, upstream: ScriptedBatchUpstream, **numbers: int) -> None:
        self.upstream = upstream
        self.batch = Batch(upstream, BatchPolicy(**numbers), clock_ns)
        self.outcomes: dict[str, Any] = {}

    def ask(self, key: str, budget_ms: int = 100, avoid: int = 0) -> UpstreamCall:
        return self.batch.call({"key": key}, f"headers of {key}", budget_ms, OutcomeRecorder(key, self.outcomes), avoid)


async def until_ms(at_ms: float) -> None:
    await asyncio.sleep((at_ms - now_ms()) / 1000)


async def end_of_turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
