"""From a source to a question that the fan-out can start: over a transport, or as a Python function in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cashier.answer import SourceError, Unreachable
from cashier.fanout.ask import Done, InFlight, Known, Start
from cashier.sources.source import Adapter, Source, read, understood
from cashier.wire.exchange import Response, Transport

Function = Callable[..., Awaitable[Any]]


def over_wire(adapter: Adapter, transport: Transport) -> Start:
    """Ask over a transport."""
    send, request = transport.send, adapter.request

    def start(known: Known, trip: Any, budget_ms: int, done: Done) -> InFlight:
        def reply(response: Response | SourceError) -> None:
            done(read(adapter, response, known))

        return send(request(known), trip, budget_ms, reply)

    return start


def in_process(source: Source, function: Function, needs: tuple[str, ...]) -> Start:
    """Ask an async function, called with what the question needs, by name.

    It returns the contract's answer as a mapping or struct, or None for "there is none". It may raise a `SourceError`; whatever else it
    raises goes to the event loop's exception handler and counts as unreachable: one broken source is no reason to lose a sale.
    """

    def start(known: Known, trip: Any, budget_ms: int, done: Done) -> InFlight:
        loop = asyncio.get_running_loop()

        def finished(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                done(_outcome(source, task, known))

        task = loop.create_task(_called(function, {name: known[name] for name in needs}))
        task.add_done_callback(finished)
        return _TaskInFlight(task, finished)

    return start


async def _called(function: Function, asked: dict[str, Any]) -> Any:
    """Called inside the task, so that what goes wrong in the calling ends where all its trouble ends."""
    return await function(**asked)


class _TaskInFlight:
    __slots__ = ("_finished", "_task")

    def __init__(self, task: asyncio.Task[Any], finished: Callable[[asyncio.Task[Any]], None]) -> None:
        self._task = task
        self._finished = finished

    def abandon(self) -> None:
        self._task.remove_done_callback(self._finished)
        self._task.cancel()


def _outcome(source: Source, task: asyncio.Task[Any], known: Known) -> Any:
    error = task.exception()
    if error is None:
        value = task.result()
        return understood(lambda: source.convert(value, known))
    if isinstance(error, SourceError):
        return error
    task.get_loop().call_exception_handler(
        {"message": f"cashier: the function of source {source.name!r} raised", "exception": error, "task": task}
    )
    return Unreachable(f"the function raised {type(error).__name__}")
