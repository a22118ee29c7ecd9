"""Upstreams for the fan-out, made of a source: over a transport or by a function in process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cashier.fanout.ask import Known
from cashier.fanout.upstream_protocol import OnAnswer, UpstreamCall, UserCall
from cashier.source_errors import FailureReason, Garbled, SourceError, Unreachable
from cashier.sources.source import ContractParser, Source, parse_or_error, parse_response
from cashier.wire.transport import Response, Transport

UpstreamFunction = Callable[..., Awaitable[Any]]


class WireUpstream:
    """A source over a transport."""

    __slots__ = ("_request", "_send", "_source", "addresses")

    def __init__(self, source: ContractParser, transport: Transport) -> None:
        self.addresses = transport.addresses
        self._source = source
        self._request = source.request
        self._send = transport.send

    def call(
        self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0
    ) -> UpstreamCall:
        source = self._source

        def on_response(response: Response | SourceError) -> None:
            if isinstance(response, SourceError):
                on_answer(response)
            else:
                on_answer(parse_response(source, response, known), response.status == 404, response.body)

        return self._send(self._request(known), call_headers, budget_ms, on_response, avoid)

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return parse_or_error(self._source.parse, 404 if not_found else 200, body, known)


class FunctionUpstream:
    """A source as an async function, called with its needs as keyword arguments.

    It returns the contract's answer as a mapping or struct, or None for "there is none". It may
    raise a `SourceError`. Any other exception goes to the event loop's exception handler and counts
    as unreachable: one broken source must not lose the sale.
    """

    __slots__ = ("_function", "_needs", "_source")

    addresses = ("in this process",)

    def __init__(self, source: Source, function: UpstreamFunction, needs: tuple[str, ...]) -> None:
        self._source = source
        self._function = function
        self._needs = needs

    def call(
        self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0
    ) -> UpstreamCall:
        def on_done(task: asyncio.Task[Any]) -> None:
            on_answer(*self._outcome(task, known))

        inputs = {name: known[name] for name in self._needs}
        task = asyncio.get_running_loop().create_task(_call(self._function, inputs))
        task.add_done_callback(on_done)
        return _FunctionCall(task, on_done)

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        """Never used: results of a function are not stored as bytes."""
        return Unreachable(
            "the result of a function cannot be stored outside of this process", reason=FailureReason.ADAPTER
        )

    def _outcome(self, task: asyncio.Task[Any], known: Known) -> tuple[Any, bool]:
        if task.cancelled():  # by the function itself: `abandon` takes this callback away
            return Unreachable("the function was cancelled", reason=FailureReason.ADAPTER), False
        error = task.exception()
        if error is None:
            value = task.result()
            try:
                return parse_or_error(self._source.convert, value, known), value is None
            except Exception as fault:  # noqa: BLE001 - a lazy value may raise anything when it is read
                raised = f"reading the result raised {type(fault).__name__}"
                return Garbled(raised, reason=FailureReason.ADAPTER), False
        if isinstance(error, SourceError):
            return error, False
        task.get_loop().call_exception_handler(
            {
                "message": f"cashier: the function of source {self._source.name!r} raised",
                "exception": error,
                "task": task,
            }
        )
        raised = f"the function raised {type(error).__name__}"
        return Unreachable(raised, reason=FailureReason.ADAPTER), False


async def _call(function: UpstreamFunction, inputs: dict[str, Any]) -> Any:
    # The function is called inside the task, so that an error of the call itself is reported too.
    try:
        return await function(**inputs)
    except (SystemExit, GeneratorExit) as fault:  # the first would end the event loop
        raise RuntimeError(f"it raised {type(fault).__name__}") from fault


class _FunctionCall(UserCall):
    __slots__ = ("_on_done", "_task")

    address_index = 0

    def __init__(self, task: asyncio.Task[Any], on_done: Callable[[asyncio.Task[Any]], None]) -> None:
        super().__init__()
        self._task = task
        self._on_done = on_done

    def abandon(self) -> None:
        self._task.remove_done_callback(self._on_done)
        self._task.cancel()
