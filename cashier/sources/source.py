"""Source: one upstream, as two pure functions, what to ask and what to make of the answer; and how its answers are read.

Sources know the contract, nothing of connections, timeouts or caching. An upstream with another shape brings an `Adapter` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from cashier.source_errors import Garbled, Overloaded, SourceError, Unreachable
from cashier.wire.transport import Request, Response

Inputs = Mapping[str, Any]


class Adapter(Protocol):
    """What joins an upstream of any shape: both functions are pure, and a module with these two names will do.

    A third one, `parameters(asked)`, makes the source fit for batches: what its batch form takes for one question, as a mapping.

    `asked` holds, by name, what the question needs: `order_id`, `user_id`, `merchant_id` (text), `amount` (`Money`), `currency`,
    `country` (text).
    """

    def request(self, asked: Inputs) -> Request:
        """The call to make."""

    def parse(self, status: int, body: bytes, asked: Inputs) -> Any:
        """The fact, one of `cashier.domain.facts`, for an answer of status 200 or 404.

        Raises `Garbled` or `WrongIdentity`; a KeyError, TypeError or ValueError counts as garbled too.
        """


class Source(Struct, frozen=True):
    """An upstream that speaks the contract.

    `target` gives path and query. `accept` takes the decoded `answer`, or None for a 404, and returns the fact, prepared for use; it
    raises `WrongIdentity` for an answer about somebody else. `parameters` is what the batch form takes; None where there is none.
    `recurring`: everybody asks about the same few things, so that the same answer comes again and again.
    """

    name: str
    answer: Any
    target: Callable[[Inputs], str]
    accept: Callable[[Any, Inputs], Any]
    decode: Callable[[bytes], Any]
    parameters: Callable[[Inputs], dict[str, Any]] | None
    recurring: bool

    def request(self, asked: Inputs) -> Request:
        return Request(self.target(asked))

    def parse(self, status: int, body: bytes, asked: Inputs) -> Any:
        if status == 404:
            check_not_found(body)
            return self.accept(None, asked)
        return self.accept(self.decode(body), asked)

    def convert(self, value: Any, asked: Inputs) -> Any:
        """The same for an answer that came as a Python object: None for "there is none", a mapping or a struct of the contract's shape."""
        return self.accept(None if value is None else msgspec.convert(value, self.answer, from_attributes=True), asked)


def source(
    name: str,
    answer: Any,
    target: Callable[[Inputs], str],
    accept: Callable[[Any, Inputs], Any],
    parameters: Callable[[Inputs], dict[str, Any]] | None = None,
    *,
    recurring: bool = False,
) -> Source:
    return Source(name, answer, target, accept, msgspec.json.Decoder(answer).decode, parameters, recurring)


class _Said(Struct, frozen=True):
    code: Any = None


_said = msgspec.json.Decoder(_Said).decode


def check_not_found(body: bytes) -> None:
    """Raises `Garbled` for the 404 of somebody who is not the service: a gateway's page, or a path that nobody serves.

    Believed, a wrong prefix in a url would mean that nobody has limits, cards or frozen accounts. A body may be empty or an object; where
    that has a `code`, it has to be about what was asked for: NOT_FOUND, CARD_NOT_FOUND, USER_UNKNOWN.
    """
    if not body.strip():
        return
    try:
        code = _said(body).code
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Garbled("a 404 that is not the service's own: not a JSON object") from None
    if isinstance(code, str) and code != "NOT_FOUND" and not code.endswith(("_NOT_FOUND", "_UNKNOWN")):
        raise Garbled("a 404 that is not about what was asked for")


def parse_response(adapter: Adapter, response: Response | SourceError, asked: Inputs) -> Any:
    """The fact in a response, or the `SourceError` in its place."""
    if isinstance(response, SourceError):
        return response
    status = response.status
    if status in (200, 404):
        return parse_or_error(adapter.parse, status, response.body, asked)
    return error_of_status(status, response.retry_after_s)


def error_of_status(status: int, retry_after_s: float | None) -> SourceError:
    """What a status means that brings no answer."""
    if status in (429, 503):
        return Overloaded(f"answered {status}", retry_after_s)
    if status >= 500:
        return Unreachable(f"answered {status}")
    return Garbled(f"answered {status}, which the contract does not know")


def parse_or_error(reading: Callable[..., Any], *parse_response: Any) -> Any:
    """What `reading` makes of what is to be `parse_response`, or the `SourceError` that it raised or that its failure means.

    Of a decoding error only the kind and the place are kept: its text may quote the answer.
    """
    try:
        return reading(*parse_response)
    except SourceError as error:
        return error.with_traceback(None)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as fault:
        return Garbled(f"not of the agreed shape: {type(fault).__name__}{_place(fault)}")


def _place(fault: Exception) -> str:
    """msgspec ends its messages with the path of the fault, which holds names and indices only."""
    _, found, path = str(fault).rpartition(" - at `")
    return f" at {path.rstrip('`')}" if found else ""
