"""A source that can be asked for many at once and does what a script says, and the askers of a batch over it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cashier.fanout.ask import Known
from cashier.fanout.batch import Batch, BatchPolicy, OnBatchOutcomes
from cashier.fanout.upstream import UpstreamCall
from cashier.source_errors import SourceError
from tests.fanout.scripted_sources import clock_ns, now_ms

Outcomes = Sequence[tuple[Any, bool, bytes | None]] | SourceError


class Call:
    """One call for many: the leg that the batch gets, and what a test sees of it."""

    def __init__(self, keys: list[str], call_headers: Any, budget_ms: int, heard: OnBatchOutcomes, avoid: int) -> None:
        self.keys = keys
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.avoid = avoid
        self.heard = heard
        self.address_index = 1
        self.began_ms = now_ms()
        self.ended_ms: float | None = None
        self.abandoned = False
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, outcomes: Outcomes | None = None) -> None:
        self.ended_ms = now_ms()
        self.timer = None
        self.heard([(f"answer to {key}", False, key.encode()) for key in self.keys] if outcomes is None else outcomes)

    def abandon(self) -> None:
        self.abandoned = True
        self.ended_ms = now_ms()
        if self.timer is not None:
            self.timer.cancel()


class ScriptedBatchUpstream:
    """A `Many` that answers each key after `after_ms`; None is never. Of `unaskable` it makes no call."""

    addresses = ("first", "second")

    def __init__(self, after_ms: float | None = 10, unaskable: str = "") -> None:
        self.after_ms = after_ms
        self.unaskable = unaskable
        self.calls: list[Call] = []

    def call_many(
        self, many: Sequence[Known], call_headers: Any, budget_ms: int, heard: OnBatchOutcomes, avoid: int = 0
    ) -> UpstreamCall:
        keys = [known["key"] for known in many]
        if self.unaskable in keys:
            raise KeyError("user_id")
        call = Call(keys, call_headers, budget_ms, heard, avoid)
        self.calls.append(call)
        if self.after_ms is not None:
            loop = asyncio.get_running_loop()
            call.timer = loop.call_at(loop.time() + self.after_ms / 1000, call.answer)
        return call

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return not_found, body, known

    @property
    def sent(self) -> list[tuple[float, str]]:
        """When the calls went out, and for which keys."""
        return [(call.began_ms, "".join(call.keys)) for call in self.calls]


class OutcomeRecorder:
    """An asker, of whom every test wants to know what they heard."""

    def __init__(self, key: str, told: dict[str, Any]) -> None:
        self.key = key
        self.told = told

    def __call__(self, outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        assert self.key not in self.told, "told twice"
        self.told[self.key] = outcome


class BatchRig:
    """A batch under test and what its askers heard, by key."""

    def __init__(self, many: ScriptedBatchUpstream, **numbers: int) -> None:
        self.many = many
        self.batch = Batch(many, BatchPolicy(**numbers), clock_ns)
        self.told: dict[str, Any] = {}

    def ask(self, key: str, budget_ms: int = 100, avoid: int = 0) -> UpstreamCall:
        return self.batch.call({"key": key}, f"trip of {key}", budget_ms, OutcomeRecorder(key, self.told), avoid)


async def until_ms(at_ms: float) -> None:
    await asyncio.sleep((at_ms - now_ms()) / 1000)


async def end_of_turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
