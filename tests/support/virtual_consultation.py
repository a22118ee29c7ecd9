"""A whole consultation in virtual time: the sandbox's world asked through functions whose delays and faults a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from cashier.consultation.flow import Consultation, ConsultError, ConsultFlow, ConsultSettings
from cashier.consultation.plan import SOURCE_SPECS, SourceBinding, consultation_plan, known_inputs
from cashier.domain.order import ConsultRequest
from cashier.domain.ranking import Weights
from cashier.fanout.upstream import unguarded
from cashier.sandbox import CASES, LocalUpstreams, World, weather_named
from cashier.settings.loader import configuration
from cashier.source_errors import Garbled, Overloaded, Unreachable, WrongIdentity
from cashier.sources.source_upstream import FunctionUpstream
from cashier.tokens.token_service import TokenService
from cashier.wire.transport import CallHeaders

DEADLINE_MS = 150
CATALOG = configuration({}, "").catalog
NEVER_MS = 10**9
WORLD = World()
FAULTS: dict[str, Callable[[], Exception]] = {
    "unreachable": lambda: Unreachable("refused"),
    "overloaded": lambda: Overloaded("503", 1.0),
    "garbled": lambda: Garbled("not of the agreed shape"),
    "wrong identity": lambda: WrongIdentity("another user"),
    "bug": lambda: RuntimeError("a function of the user's own went wrong"),
}


class Fate(NamedTuple):
    """What one source does: after how many ms, and how it ends."""

    after_ms: float = 1.0
    fault: str | None = None

    @property
    def silent(self) -> bool:
        return self.fault is not None or self.after_ms >= NEVER_MS


class Asked(NamedTuple):
    consultation: Consultation | ConsultError
    after_ms: float
    calls: dict[str, int]


def request(case: str, **other: Any) -> ConsultRequest:
    return msgspec.convert({**CASES[case].request, "deadline_ms": DEADLINE_MS, **other}, ConsultRequest)


async def ask(
    fates: Mapping[str, Fate],
    question: ConsultRequest,
    settings: ConsultSettings | None = None,
    waited_ms: int | None = None,
) -> Asked:
    """Consult once on this loop. Sources without a fate answer after one ms. `waited_ms`: so long the caller has waited already."""
    loop = asyncio.get_running_loop()
    calls: dict[str, int] = {}
    consult = consulting(fates, calls, settings)
    began = loop.time()
    found: Consultation | ConsultError
    try:
        since_ns = None if waited_ms is None else int(began * 1e9) - waited_ms * 1_000_000
        found = await consult(question, CallHeaders("test"), since_ns)
    except ConsultError as error:
        found = error
    return Asked(found, (loop.time() - began) * 1000, calls)


def consulting(
    fates: Mapping[str, Fate], calls: dict[str, int], settings: ConsultSettings | None = None
) -> ConsultFlow:
    """The flow on this loop, over sources whose calls are counted in `calls`."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # a user's broken function is reported there, and expected here
    upstreams = LocalUpstreams(WORLD, weather_named("still"))
    starts = {}
    for each in SOURCE_SPECS:
        name = each.source.name
        starts[name] = SourceBinding(
            unguarded(
                FunctionUpstream(each.source, fated(name, upstreams[name], fates.get(name, Fate()), calls), each.needs)
            )
        )
    return ConsultFlow(
        consultation_plan(starts),
        known_inputs,
        CATALOG,
        Weights(),
        TokenService(["s" * 32]).sign_consult_token,
        settings or ConsultSettings(),
        900,
        lambda: datetime.now(UTC),
        clock_ns=lambda: round(loop.time() * 1e9),
    )


def fated(
    name: str, function: Callable[..., Awaitable[Any]], fate: Fate, calls: dict[str, int]
) -> Callable[..., Awaitable[Any]]:
    async def answer(**asked: Any) -> Any:
        calls[name] = calls.get(name, 0) + 1
        await asyncio.sleep(fate.after_ms / 1000)
        if fate.fault is not None:
            raise FAULTS[fate.fault]()
        return await function(**asked)

    return answer
