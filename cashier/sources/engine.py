"""The payment engine: moves the money. How it is asked, and how its answers are read.

A submit is sent once, by nobody twice. Whatever came of it that cannot be read is `OutcomeUnknown`: the payment may exist, and only looking it
up tells. Looking up and reversing may be repeated.
"""

from __future__ import annotations

from typing import Any

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
    ReverseOutcome,
    Sealed,
    Submission,
    SubmitOutcome,
)
from cashier.domain.order import Id
from cashier.source_errors import Garbled, SourceError, Unanswered, WrongIdentity
from cashier.sources.retry import RetrySettings, retry_until_answered
from cashier.sources.source import Inputs, error_of_status, parse_or_error, parse_response, source
from cashier.wire.request_response import send_and_wait
from cashier.wire.transport import CallHeaders, Request, Response, Transport


class _Busy(Struct, frozen=True):
    code: str
    payment_id: Id


class _Refusal(Struct, frozen=True):
    code: str


_encode = msgspec.json.Encoder().encode
_busy = msgspec.json.Decoder(_Busy).decode
_refusal = msgspec.json.Decoder(_Refusal).decode


def target(asked: Inputs) -> str:
    return f"/payments/{asked['payment_id']}"


def accept(answer: EnginePayment | None, asked: Inputs) -> EnginePayment | None:
    if answer is not None and answer.payment_id != asked["payment_id"]:
        raise WrongIdentity("answered about another payment")
    if answer is not None and answer.order_id not in (None, asked["order_id"]):
        raise WrongIdentity("answered about another order")
    return answer


ENGINE = source("engine", EnginePayment, target, accept)


def submit_request(submission: Submission) -> Request:
    key = (("Idempotency-Key", submission.payment_id),)
    return Request("/payments", "POST", _encode(submission), safe=False, headers=key)


def parse_submit(response: Response | SourceError, payment_id: str, order_id: str) -> SubmitOutcome:
    """No status but the three of the contract says that nothing was taken: a 5xx, a 429 and a 404 may be a gateway's, who sent it on."""
    if isinstance(response, SourceError):
        return OutcomeUnknown(response) if response.sent else NotSent(response)
    match response.status:
        case 200:
            found: Any = parse_or_error(_answered, response.body, payment_id, order_id)
        case 409:
            found = parse_or_error(_busy_with, response.body, payment_id)
        case 422:
            found = parse_or_error(_key_reused, response.body)
        case _:
            found = error_of_status(response.status, response.retry_after_s)
    return OutcomeUnknown(found) if isinstance(found, SourceError) else found


def _answered(body: bytes, payment_id: str, order_id: str) -> EngineAnswered:
    answer = ENGINE.parse(200, body, {"payment_id": payment_id, "order_id": order_id})
    return EngineAnswered(answer)


def _busy_with(body: bytes, payment_id: str) -> OrderHasLiveAttempt:
    busy = _busy(body)
    if busy.code != "ORDER_BUSY":
        raise Garbled("answered 409 with a code that the contract does not know")
    if busy.payment_id == payment_id:
        raise Garbled("a payment that is in its own way")
    return OrderHasLiveAttempt(busy.payment_id)


def _key_reused(body: bytes) -> EngineKeyReused:
    if _refusal(body).code != "KEY_REUSED":
        raise Garbled("answered 422 with a code that the contract does not know")
    return EngineKeyReused()


def look_up_request(payment_id: str) -> Request:
    return ENGINE.request({"payment_id": payment_id})


def reverse_request(payment_id: str) -> Request:
    """Ends what is under way. Twice is as good as once, so it may be repeated."""
    return Request(f"{target({'payment_id': payment_id})}/reverse", "POST")


def parse_look_up(response: Response | SourceError, payment_id: str, order_id: str) -> LookUpOutcome:
    found: Any = parse_response(ENGINE, response, {"payment_id": payment_id, "order_id": order_id})
    match found:
        case SourceError():
            return Unanswered(found)
        case EnginePayment():
            return EngineAnswered(found)
    return NeverArrived()


def parse_reverse(response: Response | SourceError, payment_id: str, order_id: str) -> ReverseOutcome:
    """Answered with the payment as it stands then, which may be SUCCEEDED: money taken stays taken.

    A 404 ends a payment here, so it has to say itself that it is the engine's: one without a code, which would do elsewhere, is no news.
    """
    found = parse_look_up(response, payment_id, order_id)
    match found:
        case EngineAnswered() | Unanswered():
            return found
        case NeverArrived():
            assert isinstance(response, Response)  # noqa: S101  only a 404 means that
            spoken = parse_or_error(_refusal, response.body)
            return Unanswered(spoken) if isinstance(spoken, SourceError) else Sealed()


class EngineClient:
    """Asked over a transport: a submit once, the rest again and again within the budget where that helps."""

    def __init__(self, transport: Transport, tries: RetrySettings | None = None) -> None:
        self._transport = transport
        self._tries = tries or RetrySettings()

    async def submit(self, submission: Submission, call_headers: CallHeaders, budget_ms: int) -> SubmitOutcome:
        """A caller that is cancelled meanwhile has to take the outcome for `OutcomeUnknown`. An answer after the budget is not waited for."""
        response = await send_and_wait(self._transport, submit_request(submission), call_headers, budget_ms)
        return parse_submit(response, submission.payment_id, submission.order_id)

    async def look_up(self, payment_id: str, order_id: str, call_headers: CallHeaders, budget_ms: int) -> LookUpOutcome:
        async def once(left_ms: int) -> LookUpOutcome:
            return parse_look_up(
                await send_and_wait(self._transport, look_up_request(payment_id), call_headers, left_ms),
                payment_id,
                order_id,
            )

        return await retry_until_answered(once, budget_ms, self._tries)

    async def reverse(self, payment_id: str, order_id: str, call_headers: CallHeaders, budget_ms: int) -> ReverseOutcome:
        """After `Unanswered` it may be reversed or not: look it up."""

        async def once(left_ms: int) -> ReverseOutcome:
            return parse_reverse(
                await send_and_wait(self._transport, reverse_request(payment_id), call_headers, left_ms),
                payment_id,
                order_id,
            )

        return await retry_until_answered(once, budget_ms, self._tries)
