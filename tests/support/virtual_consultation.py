"""A consultation in virtual time: the sandbox's world with scripted delays and faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pytest

from cashier.consultation.answer import Consultation, ConsultError
from cashier.consultation.flow import ConsultFlow, ConsultSettings
from cashier.consultation.source_pipeline import SourcePipeline
from cashier.consultation.source_table import SOURCE_SPECS, SourceBinding, consultation_plan, known_inputs
from cashier.domain.order import ConsultRequest
from cashier.domain.ranking import Weights
from cashier.fanout.timer_wheel import TimerWheel
from cashier.sandbox import CASES, LocalUpstreams, World, weather_named
from cashier.settings.loader import configuration
from cashier.source_errors import Garbled, Overloaded, Unreachable, WrongIdentity
from cashier.sources.source_upstream import FunctionUpstream
from cashier.tokens.token_service import TokenService
from cashier.wire.transport import CallHeaders
from tests.support.unguarded import unguarded
from tests.support.virtual_time import clock_ns

DEADLINE_MS = 150
CATALOG = configuration({}, "").catalog
NEVER_MS = 10**9
# No second passes between two consultations, so what is left of an order is the same.
NOW = datetime(2026, 5, 12, 12, tzinfo=UTC)
WORLD = World(clock=lambda: NOW)
FAULTS: dict[str, Callable[[], Exception]] = {
    "unreachable": lambda: Unreachable("refused"),
    "overloaded": lambda: Overloaded("503", 1.0),
    "garbled": lambda: Garbled("not of the agreed shape"),
    "wrong identity": lambda: WrongIdentity("another user"),
    "bug": lambda: RuntimeError("a function of the user raised"),
}


class Behaviour(NamedTuple):
    """What one source does: its delay in ms, and its fault if any."""

    after_ms: float = 1.0
    fault: str | None = None

    @property
    def silent(self) -> bool:
        return self.fault is not None or self.after_ms >= NEVER_MS


class ConsultOutcome(NamedTuple):
    consultation: Consultation | ConsultError
    after_ms: float
    calls: dict[str, int]


def request(case: str, **other: Any) -> ConsultRequest:
    return msgspec.convert({**CASES[case].request, "deadline_ms": DEADLINE_MS, **other}, ConsultRequest)


@contextmanager
def cashiers_on_the_loops_clock() -> Iterator[None]:
    """Consultations of a `Cashier` that is made or reloaded meanwhile take the clock of the loop.

    Elsewhere they take the machine's, which goes on while virtual time stands: where the machine
    stalls, a source would time out.
    """
    with pytest.MonkeyPatch.context() as patch:
        for constructor in (ConsultFlow.__init__, SourcePipeline.__init__, TimerWheel.__init__):
            given = constructor.__defaults__ or ()
            defaults = tuple(clock_ns if value is time.perf_counter_ns else value for value in given)
            patch.setattr(constructor, "__defaults__", defaults)
        yield


async def ask(
    behaviours: Mapping[str, Behaviour],
    request: ConsultRequest,
    settings: ConsultSettings | None = None,
    waited_ms: int | None = None,
    absent: Collection[str] = (),
) -> ConsultOutcome:
    """Consult once on this loop. A source without a behaviour answers after one ms.

    `waited_ms`: how long the caller has waited before. `absent`: sources that are not configured.
    """
    loop = asyncio.get_running_loop()
    calls: dict[str, int] = {}
    consult = flow_over(behaviours, calls, settings, absent)
    start_s = loop.time()
    outcome: Consultation | ConsultError
    try:
        since_ns = None if waited_ms is None else int(start_s * 1e9) - waited_ms * 1_000_000
        outcome = await consult(request, CallHeaders("test"), since_ns)
    except ConsultError as error:
        outcome = error
    return ConsultOutcome(outcome, (loop.time() - start_s) * 1000, calls)


def flow_over(
    behaviours: Mapping[str, Behaviour],
    calls: dict[str, int],
    settings: ConsultSettings | None = None,
    absent: Collection[str] = (),
    **options: Any,
) -> ConsultFlow:
    """The flow on this loop, over sources whose calls are counted in `calls`. See `flow_of`."""
    loop = asyncio.get_running_loop()
    # A broken function of the user is reported there. Here it is expected.
    loop.set_exception_handler(lambda *_: None)
    upstreams = LocalUpstreams(WORLD, weather_named("still"))
    bindings = {}
    for spec in SOURCE_SPECS:
        name = spec.source.name
        if name not in absent:
            function = with_behaviours(name, upstreams[name], behaviours, calls)
            bindings[name] = SourceBinding(unguarded(FunctionUpstream(spec.source, function, spec.needs)))
    return flow_of(bindings, settings or ConsultSettings(), **options)


def flow_of(bindings: Mapping[str, SourceBinding], settings: ConsultSettings, **options: Any) -> ConsultFlow:
    """The flow on this loop. `options`: those of `ConsultFlow` that have defaults."""
    loop = asyncio.get_running_loop()
    return ConsultFlow(
        consultation_plan(bindings),
        known_inputs,
        CATALOG,
        Weights(),
        TokenService(["s" * 32]).sign_consult_token,
        settings,
        900,
        lambda: NOW,
        clock_ns=lambda: round(loop.time() * 1e9),
        **options,
    )


def with_behaviours(
    name: str, function: Callable[..., Awaitable[Any]], behaviours: Mapping[str, Behaviour], calls: dict[str, int]
) -> Callable[..., Awaitable[Any]]:
    """The function with the behaviour that its name has at the time of each call."""

    async def answer(**inputs: Any) -> Any:
        calls[name] = calls.get(name, 0) + 1
        behaviour = behaviours.get(name, Behaviour())
        await asyncio.sleep(behaviour.after_ms / 1000)
        if behaviour.fault is not None:
            raise FAULTS[behaviour.fault]()
        return await function(**inputs)

    return answer
