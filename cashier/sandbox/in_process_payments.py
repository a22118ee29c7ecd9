"""Risk, engine and acquirer as async functions: no sockets, the same rules, the same weather."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from cashier.sandbox.decline_rules import ReverseBody, SubmitBody
from cashier.sandbox.execution_faults import CLIENT_VIEW, Work, perform
from cashier.sandbox.in_process_sources import InjectedFault
from cashier.sandbox.read_sources import SourceReader
from cashier.sandbox.risk import DecisionBody, ResendBody, VerifyBody
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer
from cashier.sandbox.weather import SLOW_BODY_PAUSE_S, SLOW_BODY_PIECES, Fault, PaymentFault, Weather
from cashier.sandbox.world import World

Shape = TypeVar("Shape")


class LocalPayments:
    """The calls of an acceptance. Request bodies are mappings in the contract's shape.

    Answers have `status` and `body`, a 404 too. Raises InjectedFault if the weather suppresses the
    answer; its `fault` tells whether the work was done. A hang waits until cancelled. Garbage is a
    200 without the agreed fields.
    """

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self._weather = weather
        self._reader = SourceReader(world)

    def __repr__(self) -> str:
        return f"LocalPayments({self._world!r}, {self._weather!r})"

    async def decide(self, inquiry: Mapping[str, Any]) -> UpstreamAnswer:
        return await self._ask("risk", "decide", lambda _: self._decided(_read(inquiry, DecisionBody)))

    async def verify(self, challenge_id: str, verification: Mapping[str, Any]) -> UpstreamAnswer:
        return await self._ask(
            "risk", "verify", lambda _: self._verified(challenge_id, _read(verification, VerifyBody))
        )

    async def resend(self, challenge_id: str, resend: Mapping[str, Any]) -> UpstreamAnswer:
        return await self._ask("risk", "resend", lambda _: self._resent(challenge_id, _read(resend, ResendBody)))

    async def submit(self, submission: Mapping[str, Any], idempotency_key: str) -> UpstreamAnswer:
        return await self._ask(
            "engine", "submit", lambda fault: self._submitted(_read(submission, SubmitBody), idempotency_key, fault)
        )

    async def look_up(self, payment_id: str) -> UpstreamAnswer:
        return await self._ask("engine", "look_up", lambda _: self._world.engine.look_up(payment_id))

    async def reverse(self, payment_id: str, reversal: Mapping[str, Any] | None = None) -> UpstreamAnswer:
        """`reversal`: the body, None if it is empty."""
        return await self._ask(
            "engine", "reverse", lambda fault: self._reversed(payment_id, _read(reversal or {}, ReverseBody), fault)
        )

    async def result(self, order_id: str) -> UpstreamAnswer:
        return await self._ask("acquirer", "read", lambda _: self._reader.look_up("acquirer", {"order_id": order_id}))

    def _decided(self, inquiry: DecisionBody | UpstreamAnswer) -> UpstreamAnswer:
        return inquiry if isinstance(inquiry, UpstreamAnswer) else UpstreamAnswer(200, self._world.risk.decide(inquiry))

    def _verified(self, challenge_id: str, verification: VerifyBody | UpstreamAnswer) -> UpstreamAnswer:
        if isinstance(verification, UpstreamAnswer):
            return verification
        verified = self._world.risk.verify(challenge_id, verification)
        return UpstreamAnswer(200, verified) if verified else error_answer(404, "CHALLENGE_UNKNOWN")

    def _resent(self, challenge_id: str, resend: ResendBody | UpstreamAnswer) -> UpstreamAnswer:
        if isinstance(resend, UpstreamAnswer):
            return resend
        resent = self._world.risk.resend(challenge_id, resend)
        return UpstreamAnswer(200, resent) if resent else error_answer(404, "CHALLENGE_UNKNOWN")

    def _submitted(
        self, submission: SubmitBody | UpstreamAnswer, key: str, fault: PaymentFault | None
    ) -> UpstreamAnswer:
        return (
            submission if isinstance(submission, UpstreamAnswer) else self._world.engine.submit(submission, key, fault)
        )

    def _reversed(
        self, payment_id: str, reversal: ReverseBody | UpstreamAnswer, fault: PaymentFault | None
    ) -> UpstreamAnswer:
        return (
            reversal
            if isinstance(reversal, UpstreamAnswer)
            else self._world.engine.reverse(payment_id, fault, reversal.reason)
        )

    async def _ask(self, source: str, call: str, work: Work) -> UpstreamAnswer:
        """As over HTTP: do the work at once, then apply the latency and the fault."""
        conditions = self._weather.draw_call(source, call)
        answer = perform(self._world, conditions, work)
        if conditions.latency_s:
            await asyncio.sleep(conditions.latency_s)
        effect = CLIENT_VIEW.get(conditions.fault)
        if effect is Fault.HANG:
            await asyncio.Event().wait()
        if conditions.fault and (answer is None or effect in (Fault.RESET, Fault.TRUNCATE)):
            raise InjectedFault(source, conditions.fault)
        assert answer is not None, "no answer without a fault"  # noqa: S101  a bug of the sandbox
        match effect:
            case Fault.GARBAGE:
                return UpstreamAnswer(200, {"unexpected": []})
            case Fault.WRONG_IDENTITY:
                return answer.with_wrong_identity(SOURCES[source].identity)
            case Fault.SLOW_BODY:
                await asyncio.sleep(SLOW_BODY_PIECES * SLOW_BODY_PAUSE_S)
        return answer


def _read(body: Mapping[str, Any], shape: type[Shape]) -> Shape | UpstreamAnswer:
    """Decode through JSON, so that nothing passes that HTTP would not carry; otherwise a 400."""
    try:
        return msgspec.json.decode(msgspec.json.encode(body), type=shape)
    except msgspec.ValidationError as error:
        return error_answer(400, "MALFORMED", detail=str(error))
