"""The `open` and `close` of an adapter: bounded, and tried again until it opens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from cashier.source_errors import FailureReason, SourceError, Unreachable

# How long a start or a stop waits for an adapter.
WAIT_S = 2.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class HookedAdapter(Protocol):
    """`unopened`: why the source cannot be asked yet; None once `open` has ended."""

    name: str
    source_name: str
    unopened: SourceError | None
    open: Callable[..., Any] | None
    close: Callable[..., Any] | None

    def error_of(self, fault: BaseException, function: str) -> SourceError: ...


class AdapterHooks:
    """Opens and closes one adapter. Until `open` has ended, the source is unreachable.

    `warn` logs an event with fields.
    """

    def __init__(self, adapter: HookedAdapter, warn: Callable[..., Any]) -> None:
        self._adapter = adapter
        self._warn = warn
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Return when the adapter is open or `WAIT_S` have passed. Trying goes on after that."""
        if self._adapter.open is None:
            return
        opening = f"adapter {self._adapter.name}: open() has not ended"
        self._adapter.unopened = Unreachable(opening, sent=False, reason=FailureReason.ADAPTER)
        self._opening = asyncio.get_running_loop().create_task(self._open_at_last(self._adapter.open))
        await asyncio.wait((self._opening,), timeout=WAIT_S)
        if not self._opening.done() and self._adapter.unopened is not None:
            self._report(self._adapter.unopened)

    async def _open_at_last(self, open_: Callable[[], Awaitable[Any]]) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            fault = await self._fault_of(open_, "open")
            if fault is None:
                self._adapter.unopened = None
                return
            self._adapter.unopened = Unreachable(fault.detail, sent=False, reason=fault.reason)
            self._report(fault)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def close(self) -> None:
        """Return within `WAIT_S`."""
        tasks = []
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            tasks.append(self._opening)
        if self._adapter.close is not None:
            tasks.append(asyncio.get_running_loop().create_task(self._close(self._adapter.close)))
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=WAIT_S)
            for task in late:
                task.cancel()
                self._report(Unreachable(f"adapter {self._adapter.name}: close() has not ended"))

    async def _close(self, close: Callable[[], Awaitable[Any]]) -> None:
        fault = await self._fault_of(close, "close")
        if fault is not None:
            self._report(fault)

    async def _fault_of(self, hook: Callable[[], Awaitable[Any]], name: str) -> SourceError | None:
        try:
            await hook()
        except asyncio.CancelledError as fault:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._adapter.error_of(fault, name)
        except BaseException as fault:  # noqa: BLE001 - SystemExit would end the event loop
            return self._adapter.error_of(fault, name)
        return None

    def _report(self, fault: SourceError) -> None:
        self._warn("an adapter does not open or close", source=self._adapter.source_name, reason=fault.detail)

    def __repr__(self) -> str:
        return f"<AdapterHooks of {self._adapter!r}>"
