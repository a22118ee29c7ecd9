"""From a source to an upstream that the fan-out can call: over a transport, or as a Python function in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cashier.fanout.ask import Known
from cashier.fanout.upstream import OnAnswer, UpstreamCall
from cashier.source_errors import SourceError, Unreachable
from cashier.sources.source import Adapter, Source, parse_or_error, parse_response
from cashier.wire.transport import Response, Transport

UpstreamFunction = Callable[..., Awaitable[Any]]


class WireUpstream:
    """A source asked over a transport."""

    __slots__ = ("_adapter", "_request", "_send", "places")

    def __init__(self, adapter: Adapter, transport: Transport) -> None:
        self.places = transport.places
        self._adapter = adapter
        self._request = adapter.request
        self._send = transport.send

    def call(self, known: Known, call_headers: Any, budget_ms: int, heard: OnAnswer, avoid: int = 0) -> UpstreamCall:
        def reply(response: Response | SourceError) -> None:
            outcome = parse_response(self._adapter, response, known)
            if isinstance(response, SourceError):
                heard(outcome)
            else:
                heard(outcome, response.status == 404, response.body)

        return self._send(self._request(known), call_headers, budget_ms, reply, avoid)

    def parse_response(self, none: bool, body: bytes, known: Known) -> Any:
        return parse_or_error(self._adapter.parse, 404 if none else 200, body, known)


class FunctionUpstream:
    """An async function, called with what the question needs, by name.

    It returns the contract's answer as a mapping or struct, or None for "there is none". It may raise a `SourceError`; whatever else it
    raises goes to the event loop's exception handler and counts as unreachable: one broken source is no reason to lose a sale.
    """

    __slots__ = ("_function", "_needs", "_source")

    places = ("in this process",)

    def __init__(self, source: Source, function: UpstreamFunction, needs: tuple[str, ...]) -> None:
        self._source = source
        self._function = function
        self._needs = needs

    def call(self, known: Known, call_headers: Any, budget_ms: int, heard: OnAnswer, avoid: int = 0) -> UpstreamCall:
        def finished(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                heard(*self._outcome(task, known))

        asked = {name: known[name] for name in self._needs}
        task = asyncio.get_running_loop().create_task(_called(self._function, asked))
        task.add_done_callback(finished)
        return _FunctionCall(task, finished)

    def parse_response(self, none: bool, body: bytes, known: Known) -> Any:
        """Never asked: what a function returns is not kept as bytes."""
        return Unreachable("a function's answer cannot be kept outside of this process")

    def _outcome(self, task: asyncio.Task[Any], known: Known) -> tuple[Any, bool]:
        error = task.exception()
        if error is None:
            value = task.result()
            return parse_or_error(self._source.convert, value, known), value is None
        if isinstance(error, SourceError):
            return error, False
        task.get_loop().call_exception_handler(
            {
                "message": f"cashier: the function of source {self._source.name!r} raised",
                "exception": error,
                "task": task,
            }
        )
        return Unreachable(f"the function raised {type(error).__name__}"), False


async def _called(function: UpstreamFunction, asked: dict[str, Any]) -> Any:
    """Called inside the task, so that what goes wrong in the calling ends where all its trouble ends."""
    return await function(**asked)


class _FunctionCall:
    __slots__ = ("_finished", "_task")

    place = 0

    def __init__(self, task: asyncio.Task[Any], finished: Callable[[asyncio.Task[Any]], None]) -> None:
        self._task = task
        self._finished = finished

    def abandon(self) -> None:
        self._task.remove_done_callback(self._finished)
        self._task.cancel()
