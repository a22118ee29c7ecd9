"""Answers of objects and adapters, translated into responses of the contract.

Nothing is trusted: what a program built by hand is encoded, and then read like any answer of the
wire, with types, bounds and identity.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import PurePath
from types import TracebackType
from typing import Any

from cashier.domain.engine_contract import (
    EngineAnswered,
    EngineKeyReused,
    NeverArrived,
    NotSent,
    OrderHasLiveAttempt,
    OutcomeUnknown,
    Sealed,
)
from cashier.domain.order_result import NoOrder, OrderResult
from cashier.domain.risk_contract import (
    Accepted,
    Challenged,
    Expired,
    NoChallenge,
    NoResend,
    Passed,
    Rejected,
    Resent,
    WrongAnswer,
)
from cashier.source_errors import (
    FailureReason,
    Garbled,
    Overloaded,
    SourceError,
    TimedOut,
    Unanswered,
    Unreachable,
    WrongIdentity,
)
from cashier.sources.answer_encoder import NoContractValue, described, encode_answer
from cashier.wire.transport import Response

_MAX_DETAIL = 200
# The errors that an outcome may hold, most special first. Anything else counts as unreachable.
_ERROR_TYPES: tuple[type[SourceError], ...] = (WrongIdentity, Garbled, TimedOut, Overloaded)
# The statuses of refusals by their codes. A mapping with the text `code` and no `status` is one: to
# any other operation than a submit it says that there is no such payment, challenge or order.
_SUBMIT_REFUSALS = {"ORDER_BUSY": 409, "KEY_REUSED": 422}


def outcome_response(operation: str, outcome: Any) -> Response:  # noqa: PLR0912  one case per outcome
    """The contract's response with the meaning of an outcome of `cashier.payments.ports`.

    Raises the `SourceError` of an outcome that has one; `Garbled` for what the operation cannot
    return.
    """
    match operation, outcome:
        case "submit", NotSent(error):
            raise stated_error(error, sent=False)
        case "submit", OutcomeUnknown(error):
            raise stated_error(error, sent=True)
        case (("decide" | "verify" | "resend" | "look_up" | "reverse" | "result"), Unanswered(error)):
            raise stated_error(error, sent=True)
        case "decide", Accepted(decision_id):
            return _response({"decision": "ACCEPT", "decision_id": decision_id})
        case "decide", Rejected(decision_id, code):
            return _response({"decision": "REJECT", "decision_id": decision_id, "code": code})
        case "decide", Challenged(decision_id, challenge):
            return _response({"decision": "CHALLENGE", "decision_id": decision_id, "challenge": challenge})
        case "verify", Passed():
            return _response({"status": "PASSED", "attempts_left": 0})
        case "verify", WrongAnswer(attempts_left):
            return _response({"status": "FAILED", "attempts_left": attempts_left})
        case "verify", Expired():
            return _response({"status": "EXPIRED", "attempts_left": 0})
        case "resend", Resent(resend_after_s, sent):
            return _response({"resend_after_s": resend_after_s, "sent": sent})
        case (("submit" | "look_up" | "reverse"), EngineAnswered(payment)):
            return _response(payment)
        case "submit", OrderHasLiveAttempt(payment_id):
            return _response({"code": "ORDER_BUSY", "payment_id": payment_id}, 409)
        case "submit", EngineKeyReused():
            return _response({"code": "KEY_REUSED"}, 422)
        case ("verify", NoChallenge()) | ("resend", NoResend()) | ("look_up", NeverArrived()) | ("result", NoOrder()):
            return _response({"code": "NOT_FOUND"}, 404)
        case "reverse", NeverArrived():
            return Response(404, b"")
        case "reverse", Sealed(reason):
            return _response({"code": "NOT_FOUND", "reversal_reason": reason}, 404)
        case "result", OrderResult():
            return _response(outcome)
    strange = f"{operation} returned {described(outcome)}, which is none of its outcomes"
    raise Garbled(strange, reason=FailureReason.ADAPTER)


def mapping_response(operation: str, answer: Any) -> Response:
    """The contract's response with this body. None: there is none, a 404 without a body.

    Raises `Garbled` for what is neither a mapping, a struct nor None, or cannot be encoded.
    """
    if answer is None:
        return Response(404, b"")
    # A code that is no text belongs to a foreign envelope, such as {"code": 0, "data": …}.
    is_refusal = isinstance(answer, Mapping) and "status" not in answer and isinstance(answer.get("code"), str)
    if operation == "decide" or not is_refusal:
        return _response(answer)
    if operation != "submit":
        return _response(answer, 404)
    status = next((status for code, status in _SUBMIT_REFUSALS.items() if answer["code"] == code), None)
    if status is None:
        strange = f"submit returned a refusal with another code than {' and '.join(_SUBMIT_REFUSALS)}"
        raise Garbled(strange, reason=FailureReason.FIELD)
    return _response(answer, status)


def stated_error(error: Any, *, sent: bool) -> SourceError:
    """A new error of one of our types, with text and reason of `error`, whose fields may be any."""
    try:
        detail, seconds = getattr(error, "detail", None), getattr(error, "retry_after_s", None)
        reason = getattr(error, "reason", None)
    except Exception:  # noqa: BLE001 - of a subclass that is not ours
        detail = seconds = reason = None
    if not isinstance(reason, FailureReason):
        reason = None
    text = f"{type(error).__name__} without a reason"
    if isinstance(detail, str) and detail:
        text = "".join(sign if sign.isprintable() else " " for sign in detail[:_MAX_DETAIL])
    kind: type[SourceError] = next((kind for kind in _ERROR_TYPES if isinstance(error, kind)), Unreachable)
    if kind is Overloaded:
        stated: SourceError = Overloaded(text, _seconds(seconds))
    else:
        stated = kind(text, reason=reason)
    stated.sent = sent
    return stated


def fault_of(error: BaseException, where: str, *, sent: bool, files: frozenset[str] = frozenset()) -> SourceError:
    """The error that an exception in `where` means: its kind and place, never its text.

    `files`: of the foreign code. The place is in one of them if the exception came through it.
    """
    if isinstance(error, SourceError):
        return stated_error(error, sent=sent)
    kind = Unreachable if isinstance(error, OSError) else Garbled
    detail = f"{where} raised {type(error).__name__}{_place(error.__traceback__, files)}"
    fault = kind(detail, reason=FailureReason.ADAPTER)
    fault.sent = sent
    return fault


def is_contained(error: BaseException) -> bool:
    """True if an exception of foreign code becomes an outcome.

    A cancellation and an interruption of the process do not.
    """
    return not isinstance(error, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit)


def _response(body: Any, status: int = 200) -> Response:
    try:
        return Response(status, encode_answer(body))
    except NoContractValue as fault:
        raise Garbled(f"the answer is {fault}", reason=FailureReason.ADAPTER) from None


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value >= 0 and math.isfinite(value) else None


def _place(trace: TracebackType | None, files: frozenset[str]) -> str:
    """The last line of `files` that the exception came through, else the line that raised it."""
    place = own = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        place = f" ({PurePath(file).name}, line {trace.tb_lineno})"
        own = place if file in files else own
        trace = trace.tb_next
    return own or place
