"""The read-only sources as async functions: no sockets, the same lookups, the same weather."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from cashier.sandbox.read_sources import SourceReader
from cashier.sandbox.records import Json
from cashier.sandbox.source_table import SOURCE_READS, SOURCES
from cashier.sandbox.weather import RETRY_AFTER_S, SLOW_BODY_PAUSE_S, SLOW_BODY_PIECES, Fault, PaymentFault, Weather
from cashier.sandbox.world import World

LocalUpstream = Callable[..., Awaitable[Json | None]]


class InjectedFault(Exception):
    """The weather suppressed the answer. `retry_after_s` is set for an overload."""

    def __init__(self, source: str, fault: Fault | PaymentFault) -> None:
        super().__init__(f"{source}: {fault.value}")
        self.source = source
        self.fault = fault
        self.retry_after_s = RETRY_AFTER_S if fault is Fault.OVERLOAD else None


class LocalUpstreams(Mapping[str, LocalUpstream]):
    """One async function per source of a consultation, by the source's name.

    Each takes the inputs of its source by name; `amount` is a mapping or an object with `currency`
    and `value` in minor units. Each returns the body of the HTTP answer, or None for a 404. Answers
    are shared: do not change them. Raises InjectedFault if the weather suppresses the answer, and
    ValueError for parameters that would be a 400. A hang waits until cancelled; garbage is an
    object without the agreed fields.
    """

    def __init__(self, world: World, weather: Weather) -> None:
        self._reader = SourceReader(world)
        self._weather = weather
        self._functions: dict[str, LocalUpstream] = {
            source: partial(self._ask, source) for source, read in SOURCE_READS.items() if read.consulted
        }

    def __repr__(self) -> str:
        return f"LocalUpstreams({self._reader!r}, {self._weather!r})"

    def __getitem__(self, source: str) -> LocalUpstream:
        return self._functions[source]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    async def _ask(self, source: str, **inputs: Any) -> Json | None:
        conditions = self._weather.draw_call(source)
        if conditions.latency_s:
            await asyncio.sleep(conditions.latency_s)
        answer = self._reader.look_up(source, _parameters(**inputs))
        if answer.status == 400:
            raise ValueError(f"{source}: {answer.body['detail']}")
        match conditions.fault:
            case None:
                pass
            case Fault.HANG:
                await asyncio.Event().wait()
            case Fault.GARBAGE:
                return {"unexpected": []}
            case Fault.WRONG_IDENTITY:
                answer = answer.with_wrong_identity(SOURCES[source].identity)
            case Fault.SLOW_BODY:
                await asyncio.sleep(SLOW_BODY_PIECES * SLOW_BODY_PAUSE_S)
            case _:
                raise InjectedFault(source, conditions.fault)
        return answer.body if answer.status == 200 else None


def _parameters(amount: Any = None, **others: object) -> dict[str, object]:
    """The parameters of a request: the inputs, with an amount in its two parts."""
    if amount is None:
        return others
    money = amount if isinstance(amount, Mapping) else {"currency": amount.currency, "value": amount.value}
    return {**others, **money}
