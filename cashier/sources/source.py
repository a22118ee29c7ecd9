"""Source: one upstream as pure functions from inputs to a request, and from an answer to a fact.

Sources know the contract, and nothing of connections, timeouts or caching. An upstream with another
shape is joined by an `adapter.Adapter`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from cashier.source_errors import FailureReason, Garbled, Overloaded, SourceError, Unreachable
from cashier.wire.transport import Request, Response

# By name: `order_id`, `user_id`, `merchant_id` (text), `amount` (`Money`), `currency`, `country`
# (text). Each source reads those that its row in the plan needs.
Inputs = Mapping[str, Any]

# What parsing an answer may raise, other than for a bug of ours.
FAULTS = (SourceError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


class ContractParser(Protocol):
    """A source that speaks the contract: a `Source`, or one with a `ParseCache`."""

    def request(self, inputs: Inputs) -> Request:
        """The request to send."""

    def parse(self, status: int, body: bytes, inputs: Inputs) -> Any:
        """The fact, a type of `cashier.domain.facts`, of an answer with status 200 or 404.

        Raises `Garbled` or `WrongIdentity`; a KeyError, TypeError or ValueError also means garbled.
        """


class Source(Struct, frozen=True):
    """An upstream that speaks the contract.

    `target`: path and query. `to_fact`: takes the decoded `answer_type`, or None for a 404, and
    returns the fact, prepared for use; raises `WrongIdentity` for an answer about another subject.
    `parameters`: what the batch form takes; None if there is none. `repetitive`: few distinct
    requests bring the same answer again and again, so that parsed answers are worth caching.
    `unprepare`: takes what an adapter returned; makes an answer of a prepared fact, and returns
    any other value unchanged.
    """

    name: str
    answer_type: Any
    target: Callable[[Inputs], str]
    to_fact: Callable[[Any, Inputs], Any]
    decode: Callable[[bytes], Any]
    parameters: Callable[[Inputs], dict[str, Any]] | None
    repetitive: bool
    unprepare: Callable[[Any, Inputs], Any] | None

    def request(self, inputs: Inputs) -> Request:
        return Request(self.target(inputs))

    def parse(self, status: int, body: bytes, inputs: Inputs) -> Any:
        if status == 404:
            check_not_found(body)
            return self.to_fact(None, inputs)
        return self.to_fact(self.decode(body), inputs)

    def convert(self, value: Any, inputs: Inputs) -> Any:
        """Make the fact of a mapping or struct of the contract's shape; None: there is none."""
        answer = None if value is None else msgspec.convert(value, self.answer_type, from_attributes=True)
        return self.to_fact(answer, inputs)


def define_source(
    name: str,
    answer_type: Any,
    target: Callable[[Inputs], str],
    to_fact: Callable[[Any, Inputs], Any],
    parameters: Callable[[Inputs], dict[str, Any]] | None = None,
    *,
    repetitive: bool = False,
    unprepare: Callable[[Any, Inputs], Any] | None = None,
) -> Source:
    decode = msgspec.json.Decoder(answer_type).decode
    return Source(
        name=name,
        answer_type=answer_type,
        target=target,
        to_fact=to_fact,
        decode=decode,
        parameters=parameters,
        repetitive=repetitive,
        unprepare=unprepare,
    )


# msgspec's texts of types and bounds; they name the contract's side only.
_EXPECTED = re.compile(r"(Expected `[^`]*`.*|Object missing required field `\w+`|Invalid RFC3339 encoded datetime)")


class NotFound(Struct, frozen=True):
    """The body of a 404, which may be empty. `code`: read if it is a text."""

    code: Any = None


_decode_not_found = msgspec.json.Decoder(NotFound).decode


def check_not_found(body: bytes) -> None:
    """Raise `Garbled` for a 404 that is not the service's own: a gateway's page, an unknown path.

    Otherwise a wrong prefix in a URL would mean that no user has limits, cards or frozen accounts.
    The body must be empty or an object; its `code`, if any, must be about the subject of the
    request: NOT_FOUND, CARD_NOT_FOUND, USER_UNKNOWN.
    """
    if not body.strip():
        return
    try:
        code = _decode_not_found(body).code
    except (msgspec.DecodeError, UnicodeDecodeError):
        strange = "a 404 that is not the service's own: not a JSON object"
        raise Garbled(strange, reason=FailureReason.WRONG_PATH) from None
    if isinstance(code, str) and code != "NOT_FOUND" and not code.endswith(("_NOT_FOUND", "_UNKNOWN")):
        strange = "a 404 with a code other than NOT_FOUND, …_NOT_FOUND and …_UNKNOWN: no such path there"
        raise Garbled(strange, reason=FailureReason.WRONG_PATH)


def parse_response(source: ContractParser, response: Response | SourceError, inputs: Inputs) -> Any:
    """Return the fact in a response, or the `SourceError` in its place."""
    if isinstance(response, SourceError):
        return response
    status = response.status
    if status in (200, 404):
        try:  # not by `parse_answer`: this is the hot path
            return source.parse(status, response.body, inputs)
        except FAULTS as fault:
            return response.discredit(_error_of_fault(fault))
    return error_of_response(response)


def parse_answer(response: Response, parse: Callable[..., Any], *arguments: Any) -> Any:
    """As `parse_or_error`, for an answer whose connection is discredited by an error."""
    try:
        return parse(*arguments)
    except FAULTS as fault:
        return response.discredit(_error_of_fault(fault))


def error_of_response(response: Response) -> SourceError:
    """The meaning of a status other than 200 and 404, reported to the connection."""
    return response.discredit(error_of_status(response.status, response.retry_after_s))


UNAUTHORIZED_STATUSES = frozenset((401, 403))
_REASON_OF_STATUS_CLASS = {
    2: FailureReason.STATUS_2XX,
    3: FailureReason.STATUS_3XX,
    4: FailureReason.STATUS_4XX,
}


def error_of_status(status: int, retry_after_s: float | None) -> SourceError:
    """The meaning of a status other than 200 and 404."""
    if status in (429, 503):
        return Overloaded(f"status {status}", retry_after_s)
    if status >= 500:
        return Unreachable(f"status {status}", reason=FailureReason.STATUS_5XX)
    if status in UNAUTHORIZED_STATUSES:
        return Garbled(f"status {status}: the service refuses our credential", reason=FailureReason.UNAUTHORIZED)
    reason = _REASON_OF_STATUS_CLASS.get(status // 100, FailureReason.PROTOCOL)
    return Garbled(f"status {status}, which is not in the contract", reason=reason)


def parse_or_error(parse: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of `parse`, or the `SourceError` that it raised or its failure means."""
    try:
        return parse(*arguments)
    except FAULTS as fault:
        return _error_of_fault(fault)


def _error_of_fault(fault: Exception) -> SourceError:
    """Of a decoding error only what quotes nothing of the answer is kept."""
    if isinstance(fault, SourceError):
        return fault.with_traceback(None)
    undecodable = isinstance(fault, msgspec.DecodeError | UnicodeDecodeError | RecursionError)
    no_json = undecodable and not isinstance(fault, msgspec.ValidationError)
    return Garbled(
        f"not of the agreed shape: {_without_values(fault)}",
        reason=FailureReason.NOT_JSON if no_json else FailureReason.FIELD,
    )


def _without_values(fault: Exception) -> str:
    """What was expected where. Texts that may quote the answer are replaced by their kind."""
    text, separator, path = str(fault).rpartition(" - at `")
    known = isinstance(fault, msgspec.ValidationError) and _EXPECTED.fullmatch(text if separator else str(fault))
    if isinstance(fault, msgspec.ValidationError) and text.startswith("Invalid enum value"):
        expected = "a value that the contract does not have"
    else:
        expected = known[0] if known else type(fault).__name__
    # The path consists of names and indexes only.
    return f"{expected} at {path.rstrip('`')}" if separator else expected
