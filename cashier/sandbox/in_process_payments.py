"""Risk, engine and acquirer as functions of the process: no sockets, the same rules, the same weather."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from cashier.sandbox.engine_rules import SubmitBody
from cashier.sandbox.fault_effects import CLIENT_VIEW, Work, perform
from cashier.sandbox.in_process import InjectedFault
from cashier.sandbox.read_sources import SourceReader
from cashier.sandbox.risk import DecisionBody, VerifyBody
from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer
from cashier.sandbox.weather import IDENTITY_FIELDS, SLOW_BODY_PAUSE_S, SLOW_BODY_PIECES, Fault, PaymentFault, Weather
from cashier.sandbox.world import World

Shape = TypeVar("Shape")


class LocalPayments:
    """The calls of an acceptance. Bodies are mappings, as the contract has them; answers have a `status` and a `body`, a 404 too.

    Raises UpstreamTrouble for what the weather took: its `fault` says whether anything was done. A hang waits until it is cancelled.
    Garbage is a 200 without anything of what was agreed.
    """

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self._weather = weather
        self._lookups = SourceReader(world)

    def __repr__(self) -> str:
        return f"LocalPayments({self._world!r}, {self._weather!r})"

    async def decide(self, inquiry: Mapping[str, Any]) -> UpstreamAnswer:
        return await self._ask("risk", "decide", lambda _: self._decided(_read(inquiry, DecisionBody)))

    async def verify(self, challenge_id: str, verification: Mapping[str, Any]) -> UpstreamAnswer:
        return await self._ask(
            "risk", "verify", lambda _: self._verified(challenge_id, _read(verification, VerifyBody))
        )

    async def submit(self, submission: Mapping[str, Any], idempotency_key: str) -> UpstreamAnswer:
        return await self._ask(
            "engine", "submit", lambda mishap: self._submitted(_read(submission, SubmitBody), idempotency_key, mishap)
        )

    async def look_up(self, payment_id: str) -> UpstreamAnswer:
        return await self._ask("engine", "look_up", lambda _: self._world.engine.look_up(payment_id))

    async def reverse(self, payment_id: str) -> UpstreamAnswer:
        return await self._ask("engine", "reverse", lambda mishap: self._world.engine.reverse(payment_id, mishap))

    async def result(self, order_id: str) -> UpstreamAnswer:
        return await self._ask("acquirer", "read", lambda _: self._lookups.look_up("acquirer", {"order_id": order_id}))

    def _decided(self, inquiry: DecisionBody | UpstreamAnswer) -> UpstreamAnswer:
        return inquiry if isinstance(inquiry, UpstreamAnswer) else UpstreamAnswer(200, self._world.risk.decide(inquiry))

    def _verified(self, challenge_id: str, verification: VerifyBody | UpstreamAnswer) -> UpstreamAnswer:
        if isinstance(verification, UpstreamAnswer):
            return verification
        told = self._world.risk.verify(challenge_id, verification)
        return UpstreamAnswer(200, told) if told else error_answer(404, "CHALLENGE_UNKNOWN")

    def _submitted(
        self, submission: SubmitBody | UpstreamAnswer, key: str, mishap: PaymentFault | None
    ) -> UpstreamAnswer:
        return (
            submission if isinstance(submission, UpstreamAnswer) else self._world.engine.submit(submission, key, mishap)
        )

    async def _ask(self, source: str, call: str, work: Work) -> UpstreamAnswer:
        """As over HTTP: the work is done at once, and its answer takes as long as the weather has it."""
        conditions = self._weather.conditions(source, call)
        answer = perform(self._world, conditions, work)
        if conditions.latency_s:
            await asyncio.sleep(conditions.latency_s)
        seen = CLIENT_VIEW.get(conditions.fault)
        if seen is Fault.HANG:
            await asyncio.Event().wait()
        if conditions.fault and (answer is None or seen in (Fault.RESET, Fault.TRUNCATE)):
            raise InjectedFault(source, conditions.fault)
        assert answer is not None, "without a fault there is an answer"  # noqa: S101  our bug, loud
        match seen:
            case Fault.GARBAGE:
                return UpstreamAnswer(200, {"unexpected": []})
            case Fault.WRONG_IDENTITY:
                return answer.with_wrong_identity(IDENTITY_FIELDS[source])
            case Fault.SLOW_BODY:
                await asyncio.sleep(SLOW_BODY_PIECES * SLOW_BODY_PAUSE_S)
        return answer


def _read(told: Mapping[str, Any], shape: type[Shape]) -> Shape | UpstreamAnswer:
    """The body in its shape, or the 400 that the service gives. It goes through JSON: nothing passes that HTTP would not carry."""
    try:
        return msgspec.json.decode(msgspec.json.encode(told), type=shape)
    except msgspec.ValidationError as broken:
        return error_answer(400, "MALFORMED", detail=str(broken))
