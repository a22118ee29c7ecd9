"""The payment engine, which moves the money: requests and the meaning of its answers.

A submit is sent once. Without a credible answer its outcome is `OutcomeUnknown`: the payment may
exist, and only a look-up settles it. Look-ups and reversals may be repeated.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import msgspec
from msgspec import Struct

from cashier.domain.engine_contract import (
    EngineAnswered,
    EngineKeyReused,
    EnginePayment,
    LookUpOutcome,
    NeverArrived,
    NotSent,
    OrderHasLiveAttempt,
    OutcomeUnknown,
    ReversalReason,
    ReverseOutcome,
    Sealed,
    Submission,
    SubmitOutcome,
)
from cashier.domain.order import Id
from cashier.fanout.failure_log import OnFailure, ignore_failure
from cashier.metrics.store import Store
from cashier.source_errors import FailureReason, Garbled, SourceError, Unanswered, WrongIdentity
from cashier.sources.idempotent_retry import RetrySettings
from cashier.sources.service_calls import ServiceCalls
from cashier.sources.service_request import ServiceRequest
from cashier.sources.source import (
    Inputs,
    define_source,
    error_of_response,
    parse_answer,
    parse_or_error,
    parse_response,
)
from cashier.wire.transport import CallHeaders, Response, Transport


class BusyAnswer(Struct, frozen=True):
    """The body of a 409 to a submit. `payment_id`: the live attempt of the order."""

    code: Literal["ORDER_BUSY"]
    payment_id: Id


class KeyReusedAnswer(Struct, frozen=True):
    """The body of a 422 to a submit."""

    code: Literal["KEY_REUSED"]


class UnknownPayment(Struct, frozen=True):
    """The body of a 404 to a reversal: the engine refuses the payment from now on."""

    code: str
    reversal_reason: str | None = None


class Reversal(Struct, frozen=True):
    """The body of a reversal, which may be empty."""

    reason: ReversalReason


_encode = msgspec.json.Encoder().encode
_decode_order_busy = msgspec.json.Decoder(BusyAnswer).decode
_decode_key_reused = msgspec.json.Decoder(KeyReusedAnswer).decode
_decode_never_arrived = msgspec.json.Decoder(UnknownPayment).decode


def target(inputs: Inputs) -> str:
    return f"/payments/{inputs['payment_id']}"


def to_payment(answer: EnginePayment | None, inputs: Inputs) -> EnginePayment | None:
    if answer is not None and answer.payment_id != inputs["payment_id"]:
        raise WrongIdentity("an answer about another payment")
    if answer is not None and answer.order_id not in (None, inputs["order_id"]):
        raise WrongIdentity("an answer about another order")
    return answer


ENGINE = define_source("engine", EnginePayment, target, to_payment)


def submit_request(submission: Submission) -> ServiceRequest:
    return ServiceRequest(
        "/payments",
        "POST",
        _encode(submission),
        safe=False,
        headers=(("Idempotency-Key", submission.payment_id),),
        operation="submit",
        arguments=(submission,),
    )


def parse_submit(response: Response | SourceError, payment_id: str, order_id: str) -> SubmitOutcome:
    """Only the contract's 200, 409 and 422 settle a submit.

    A 5xx, 429 or 404 may come from a gateway that forwarded the request all the same.
    """
    if isinstance(response, SourceError):
        return OutcomeUnknown(response) if response.sent else NotSent(response)
    match response.status:
        case 200:
            outcome: Any = parse_answer(response, _parse_payment, response.body, payment_id, order_id)
        case 409:
            outcome = parse_answer(response, _parse_order_busy, response.body, payment_id)
        case 422:
            outcome = parse_answer(response, _parse_key_reused, response.body)
        case _:
            outcome = error_of_response(response)
    return OutcomeUnknown(outcome) if isinstance(outcome, SourceError) else outcome


def _parse_payment(body: bytes, payment_id: str, order_id: str) -> EngineAnswered:
    return EngineAnswered(ENGINE.parse(200, body, {"payment_id": payment_id, "order_id": order_id}))


def _parse_order_busy(body: bytes, payment_id: str) -> OrderHasLiveAttempt:
    busy = _decode_order_busy(body)
    if busy.payment_id == payment_id:
        raise Garbled("a payment reported as busy with itself", reason=FailureReason.FIELD)
    return OrderHasLiveAttempt(busy.payment_id)


def _parse_key_reused(body: bytes) -> EngineKeyReused:
    _decode_key_reused(body)
    return EngineKeyReused()


def look_up_request(payment_id: str, order_id: str) -> ServiceRequest:
    return ServiceRequest(target({"payment_id": payment_id}), operation="look_up", arguments=(payment_id, order_id))


def reverse_request(payment_id: str, order_id: str, reason: ReversalReason | None = None) -> ServiceRequest:
    """Ends a payment in progress. Idempotent, so it may be repeated."""
    return ServiceRequest(
        f"{target({'payment_id': payment_id})}/reverse",
        "POST",
        b"" if reason is None else _encode(Reversal(reason)),
        operation="reverse",
        arguments=(payment_id, order_id),
        options={"reason": reason},
    )


def parse_look_up(response: Response | SourceError, payment_id: str, order_id: str) -> LookUpOutcome:
    outcome: Any = parse_response(ENGINE, response, {"payment_id": payment_id, "order_id": order_id})
    match outcome:
        case SourceError():
            return Unanswered(outcome)
        case EnginePayment():
            return EngineAnswered(outcome)
    return NeverArrived()


def parse_reverse(
    response: Response | SourceError, payment_id: str, order_id: str, *, seals: bool = True
) -> ReverseOutcome:
    """The answer is the resulting payment, which may be SUCCEEDED: a reverse returns no money.

    A 404 ends the payment, so it must prove that it comes from the engine: without a code, which
    other 404s may lack, it counts as unanswered. `seals` False: the engine cannot refuse a payment
    that it does not know, so its 404 ends nothing.
    """
    outcome = parse_look_up(response, payment_id, order_id)
    match outcome:
        case NeverArrived() if not seals:
            return outcome
        case EngineAnswered() | Unanswered():
            return outcome
        case NeverArrived():
            assert isinstance(response, Response)  # noqa: S101  only a 404 means that
            refusal = parse_or_error(_decode_never_arrived, response.body)
            return Unanswered(refusal) if isinstance(refusal, SourceError) else Sealed(refusal.reversal_reason)


class EngineClient:
    """Calls the engine over a transport: a submit once, the rest with retries within the budget.

    `seals`: a reversal of an unknown payment refuses it for good.
    """

    def __init__(
        self,
        transport: Transport,
        retry: RetrySettings | None = None,
        on_failure: OnFailure = ignore_failure,
        *,
        seals: bool = True,
        metrics: Store | None = None,
    ) -> None:
        self._seals = seals
        self._calls = ServiceCalls("engine", transport, on_failure, metrics)
        self._retry = retry or RetrySettings()

    async def submit(self, submission: Submission, call_headers: CallHeaders, budget_ms: int) -> SubmitOutcome:
        """A caller cancelled meanwhile must assume `OutcomeUnknown`. A late answer is dropped."""
        parse = partial(parse_submit, payment_id=submission.payment_id, order_id=submission.order_id)
        return await self._calls.ask(submit_request(submission), parse, call_headers, budget_ms)

    async def look_up(self, payment_id: str, order_id: str, call_headers: CallHeaders, budget_ms: int) -> LookUpOutcome:
        parse = partial(parse_look_up, payment_id=payment_id, order_id=order_id)
        return await self._calls.ask_until_answered(
            look_up_request(payment_id, order_id), parse, call_headers, budget_ms, self._retry
        )

    async def reverse(
        self,
        payment_id: str,
        order_id: str,
        call_headers: CallHeaders,
        budget_ms: int,
        *,
        reason: ReversalReason | None = None,
    ) -> ReverseOutcome:
        """After `Unanswered` the payment may be reversed or not: look it up."""
        parse = partial(parse_reverse, payment_id=payment_id, order_id=order_id, seals=self._seals)
        return await self._calls.ask_until_answered(
            reverse_request(payment_id, order_id, reason), parse, call_headers, budget_ms, self._retry
        )
