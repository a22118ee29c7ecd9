"""Adapters: the user's code that joins a service of another shape to a source of a consultation.

Whatever an adapter does, only its source fails. Every call of its code is here or in
`adapter_upstream`: an exception becomes a `SourceError` that names the adapter, the function and
the line. `answer_encoder` reads the result, which is then parsed like the contract's own answer,
with all checks.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from os.path import basename
from types import TracebackType
from typing import Any

from msgspec import Raw

from cashier.fanout.batch import Outcome
from cashier.source_errors import (
    FailureReason,
    Garbled,
    NotAsked,
    Overloaded,
    SourceError,
    TimedOut,
    Unreachable,
    WrongIdentity,
)
from cashier.sources.adapter_settings import checked_request
from cashier.sources.answer_encoder import NoContractValue, encode_answer
from cashier.sources.asked import Asked, UnneededInput
from cashier.sources.source import UNAUTHORIZED_STATUSES, Inputs, Source, error_of_status, parse_or_error
from cashier.wire.transport import Request, Response

DEFAULT_STATUSES = frozenset((200, 404))
_MAX_DETAIL_CHARACTERS = 200

SendRequest = Callable[[Request], Awaitable[Response]]


class Adapter:
    """An adapter in one of its two forms, checked at start. ValueError names what is wrong.

    Form 1: `request(asked)` and `parse(response, asked)`, or `parse(status, body, asked)`. Form 2:
    `async answer(asked, call)`. Optional: `statuses`, `parameters(asked)` for batches, and async
    `open()` and `close()`.

    `unopened`: why the source cannot be asked yet; None once `open` has ended. `on_mapping` takes
    each answer as JSON before it is checked, `on_raised` each exception: for trials.
    """

    def __init__(
        self,
        name: str,
        adapter: Any,
        source: Source,
        needs: tuple[str, ...],
        on_mapping: Callable[[bytes], None] = lambda body: None,
        on_raised: Callable[[BaseException], None] = lambda fault: None,
    ) -> None:
        self.name = name
        self._on_mapping = on_mapping
        self._on_raised = on_raised
        self.source_name = source.name
        self._source = source
        self._needs = needs
        self._adapter = adapter
        self.unopened: SourceError | None = None
        self.answer: Callable[[Asked, SendRequest], Any] | None = self._function("answer", ("asked", "call"))
        self._request = self._function("request", ("asked",))
        self._parse = self._function("parse", ("response", "asked"), ("status", "body", "asked"))
        self._parse_takes_response = self._parse is not None and _parameter_count(self._parse) == 2
        self._parameters = self._function("parameters", ("asked",))
        # What the batch form takes for one request, as JSON; raises SourceError.
        self.parameters: Callable[[Inputs], Raw] | None = None if self._parameters is None else self._encoded_parameters
        self.open = self._function("open", ())
        self.close = self._function("close", ())
        self.statuses = checked_statuses(name, getattr(adapter, "statuses", DEFAULT_STATUSES))
        self._check_form()
        self._files = {
            function.__code__.co_filename
            for function in map(inspect.unwrap, filter(None, (self.answer, self._request, self._parse)))
            if hasattr(function, "__code__")
        }

    def __repr__(self) -> str:
        return f"<Adapter {self.name} of {self._source.name}>"

    def _check_form(self) -> None:
        first = [name for name, function in (("request", self._request), ("parse", self._parse)) if function]
        if self.answer is None and len(first) < 2:
            missing = [name for name in ("request", "parse") if name not in first]
            raise ValueError(
                f"adapter {self.name!r} has no function {' and no '.join(missing)};"
                " it needs request(asked) and parse(response, asked), or async answer(asked, call)"
            )
        if self.answer is not None and first:
            raise ValueError(f"adapter {self.name!r} has answer and {' and '.join(first)}: leave one form out")
        if self.answer is not None and self._parameters is not None:
            raise ValueError(f"adapter {self.name!r} has answer and parameters: batches need request and parse")
        for name, function in (("answer", self.answer), ("open", self.open), ("close", self.close)):
            if function is not None and not _is_async(function):
                raise ValueError(f"{name} of adapter {self.name!r} is not async; write async def {name}")
        for name, function in (("request", self._request), ("parse", self._parse), ("parameters", self._parameters)):
            if function is not None and _is_async(function):
                raise ValueError(
                    f"{name} of adapter {self.name!r} is async; what awaits belongs in answer(asked, call)"
                )

    def _function(self, name: str, *signatures: tuple[str, ...]) -> Callable[..., Any] | None:
        try:
            function: Callable[..., Any] | None = getattr(self._adapter, name, None)
        except Exception as error:  # noqa: BLE001 - a property of the user's
            raise ValueError(f"{name} of adapter {self.name!r} raised {type(error).__name__}: {error}") from None
        if function is None:
            return None
        wanted = " or ".join(f"{name}({', '.join(signature)})" for signature in signatures)
        if not callable(function):
            raise ValueError(f"{name} of adapter {self.name!r} is no function; it has to be {wanted}")
        if _parameter_count(function) not in [len(signature) for signature in signatures]:
            raise ValueError(f"{name} of adapter {self.name!r} takes other parameters; it has to be {wanted}")
        return function

    def parse(self, status: int, body: bytes, known: Inputs) -> Any:
        """See `ContractParser`: an answer in the contract's shape."""
        return self._source.parse(status, body, known)

    def asked(self, known: Inputs) -> Asked:
        return Asked(self._source.name, known, self._needs)

    def request(self, asked: Asked) -> Request:
        """Raises SourceError."""
        assert self._request is not None, "an adapter of form 2 makes its requests itself"  # noqa: S101
        try:
            request = self._request(asked)
        except BaseException as fault:  # noqa: BLE001 - SystemExit would end the event loop
            raise self.error_of(fault, "request") from None
        return self.checked(request)

    def checked(self, request: Any) -> Request:
        """A request as a transport takes it. Raises `Garbled`."""
        try:
            return checked_request(request, self.name)
        except Garbled:
            raise
        except BaseException as fault:  # noqa: BLE001 - of an object that pretends to be one
            raise self.error_of(fault, "the request") from None

    def _encoded_parameters(self, known: Inputs) -> Raw:
        assert self._parameters is not None, "then `parameters` is None"  # noqa: S101
        try:
            return Raw(encode_answer(self._parameters(self.asked(known))))
        except BaseException as fault:  # noqa: BLE001 - SystemExit would end the event loop
            raise self.error_of(fault, "parameters") from None

    def outcome(self, response: Response | SourceError, asked: Asked) -> Outcome:
        """The outcome that form 1 makes of a response. Never raises."""
        if isinstance(response, SourceError):
            return response, False, None
        if response.status not in self.statuses:
            return error_of_undeclared(response, self.name), False, None
        assert self._parse is not None, "form 2 has no single response"  # noqa: S101
        try:
            value = (
                self._parse(response, asked)
                if self._parse_takes_response
                else self._parse(response.status, response.body, asked)
            )
        except BaseException as fault:  # noqa: BLE001 - SystemExit would end the event loop
            return response.discredit(self.error_of(fault, "parse")), False, None
        outcome, not_found, body = self.outcome_of_value(value, asked, "parse")
        if isinstance(outcome, SourceError):
            response.discredit(outcome)
        # Old adapters return an empty struct for a 404.
        return outcome, not_found or (response.status == 404 and body is not None), body

    def outcome_of_value(self, value: Any, asked: Asked, function: str) -> Outcome:
        """The outcome of an answer in the contract's shape; None: there is none. Never raises."""
        try:
            not_found = value is None
            body = b"" if not_found else encode_answer(self._in_contract_shape(value, asked))
            self._on_mapping(body)
            answer = parse_or_error(self._source.parse, 404 if not_found else 200, body, asked)
        except BaseException as fault:  # noqa: BLE001 - SystemExit would end the event loop
            return self.error_of(fault, f"the answer of {function}"), False, None
        if isinstance(answer, SourceError):
            kind = WrongIdentity if isinstance(answer, WrongIdentity) else Garbled
            return kind(f"adapter {self.name}: {answer.detail}"), False, None
        return answer, not_found, body

    def parse_stored(self, not_found: bool, body: bytes, known: Inputs) -> Any:
        """Parse the body of an outcome again: an answer in the contract's shape."""
        status = 404 if not_found and not body else 200
        return parse_or_error(self._source.parse, status, body, known)

    def _in_contract_shape(self, value: Any, asked: Asked) -> Any:
        unprepare = self._source.unprepare
        return value if unprepare is None else unprepare(value, asked)

    def error_of(self, fault: BaseException, function: str, passed_on: Sequence[SourceError] = ()) -> SourceError:
        """What it means that a function of the adapter raised `fault`.

        `passed_on`: errors of its own calls, which it may raise unchanged. Texts of other
        exceptions are left out: they may quote an answer.
        """
        if isinstance(fault, KeyboardInterrupt):
            raise fault
        if isinstance(fault, SourceError):
            passed = any(fault is error for error in passed_on)
            return fault.with_traceback(None) if passed else self._own_error(fault)
        if isinstance(fault, NoContractValue):
            return Garbled(f"adapter {self.name}: {function} is {fault}", reason=FailureReason.ADAPTER)
        self._on_raised(fault)
        place = self._place(fault.__traceback__)
        unneeded = fault if isinstance(fault, UnneededInput) else fault.__cause__ or fault.__context__
        if isinstance(unneeded, UnneededInput):
            detail = f"adapter {self.name}: {function}() reads {unneeded.args[0]}{place}"
            return Garbled(detail, reason=FailureReason.ADAPTER)
        what = function if function.startswith("the ") else f"{function}()"
        detail = f"adapter {self.name}: {what} raised {type(fault).__name__}{place}"
        return Garbled(detail, reason=FailureReason.ADAPTER)

    def _own_error(self, error: SourceError) -> SourceError:
        """A new error, because an adapter may raise one object again and again."""
        detail = f"adapter {self.name}: {_detail(error)}"
        match error:
            case Overloaded():
                seconds = error.retry_after_s
                return Overloaded(detail, seconds if isinstance(seconds, int | float) and seconds >= 0 else None)
            case WrongIdentity():
                return WrongIdentity(detail)
            case TimedOut():
                return TimedOut(detail)
            case Unreachable() | NotAsked():  # only the fan-out decides not to ask
                return Unreachable(detail)
        return Garbled(detail, reason=FailureReason.FIELD)

    def _place(self, traceback: TracebackType | None) -> str:
        """The last line of the adapter's own file in a traceback."""
        place = ""
        while traceback is not None:
            file = traceback.tb_frame.f_code.co_filename
            if file in self._files:
                place = f" ({basename(file)}, line {traceback.tb_lineno})"
            traceback = traceback.tb_next
        return place


def _detail(error: SourceError) -> str:
    try:
        return str(error.detail)[:_MAX_DETAIL_CHARACTERS]
    except Exception:  # noqa: BLE001 - a subclass of the user's
        return type(error).__name__


def checked_statuses(name: str, statuses: Any) -> frozenset[int]:
    wrong = f"statuses of adapter {name!r} must be a set of HTTP statuses from 200 to 599, such as {{200, 404}}"
    if isinstance(statuses, str | bytes | Mapping):
        raise ValueError(wrong)
    try:
        found = frozenset(statuses)
    except TypeError:
        raise ValueError(wrong) from None
    if not found or not all(type(status) is int and 200 <= status <= 599 for status in found):
        raise ValueError(wrong)
    return found


def error_of_undeclared(response: Response, name: str) -> SourceError:
    """The meaning of a status that the adapter does not declare, reported to the connection."""
    error = error_of_status(response.status, response.retry_after_s)
    if isinstance(error, Garbled):
        undeclared = f"status {response.status} is not among its statuses"
        if response.status in UNAUTHORIZED_STATUSES:
            undeclared = error.detail
        error = Garbled(f"adapter {name}: {undeclared}", reason=error.reason)
    return response.discredit(error)


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or (
        not inspect.isroutine(function) and inspect.iscoroutinefunction(type(function).__call__)
    )


def _parameter_count(function: Callable[..., Any]) -> int | None:
    """The number of parameters by position; None if some are optional or must have a name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = 0
    for parameter in parameters:
        required = parameter.default is inspect.Parameter.empty
        if parameter.kind in by_position and required:
            count += 1
        elif parameter.kind is not inspect.Parameter.KEYWORD_ONLY or required:
            return None
    return count
