"""An event loop that a test advances, over a clock that stands still while code runs, with pipes as
sockets.

Nothing waits, opens a socket or reads the machine's clock, so the same work takes the same steps
every time. `made` counts the program's requests to the loop; it does not count external events
(arriving bytes, passing time).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import count
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
OnWrite = Callable[["Pipe", bytes], None]


class Clock:
    """All clocks of the program. It moves only when a test sets it. `reads` counts the readings."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000_000_000_000
        self.reads = 0

    def ns(self) -> int:
        self.reads += 1
        return self.now_ns

    def s(self) -> float:
        self.reads += 1
        return self.now_ns / 1e9


class Pipe(asyncio.Transport):
    """One end of a connection. Writes go to `on_write` at once."""

    def __init__(self, on_write: OnWrite) -> None:
        super().__init__()
        self._on_write = on_write
        self.protocol: Any = None
        self.closing = False
        self.writes = 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.writes += 1
        self._on_write(self, bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class ManualLoop(asyncio.AbstractEventLoop):
    """`on_upstream_write` receives the writes to connections that the program opens.

    `protocol_factory` makes the protocol of each accepted connection.
    """

    def __init__(self, clock: Clock, on_upstream_write: OnWrite) -> None:
        self.made: Counter[str] = Counter()
        self.upstream_pipes: list[Pipe] = []
        self.protocol_factory: Callable[[], Any] | None = None
        self._clock: Final = clock
        self._on_upstream_write = on_upstream_write
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = count()
        self._faults: list[dict[str, Any]] = []

    # The outside world

    def schedule_external(self, after_ms: int, callback: Callable[..., object], *args: object) -> None:
        """Schedule an external event, which is not counted."""
        due_s = self._now_s() + after_ms / 1000
        heapq.heappush(self._timers, (due_s, next(self._order), asyncio.TimerHandle(due_s, callback, args, self)))

    def accept(self, on_write: OnWrite) -> Pipe:
        """Connect a client."""
        assert self.protocol_factory is not None
        pipe = Pipe(on_write)
        pipe.protocol = self.protocol_factory()
        pipe.protocol.connection_made(pipe)
        return pipe

    def advance(self, ms: int) -> None:
        """Run everything that is ready or due within this time."""
        until_ns = self._clock.now_ns + ms * 1_000_000
        self._turn()
        while self._timers and round(self._timers[0][0] * 1e9) <= until_ns:
            self._clock.now_ns = max(self._clock.now_ns, round(self._timers[0][0] * 1e9))
            self._ready.append(heapq.heappop(self._timers)[2])
            self._turn()
        self._clock.now_ns = until_ns
        assert not self._faults, self._faults

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Advance until the work is done."""
        asyncio._set_running_loop(self)
        task = self.create_task(work)
        while not task.done():
            self.advance(1)
        result: Result = task.result()
        return result

    def _turn(self) -> None:
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _now_s(self) -> float:
        return self._clock.now_ns / 1e9

    # The part of the loop's interface that the program uses. Callback types are looser than in
    # typeshed.

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        self.made["callbacks"] += 1
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self.made["timers"] += 1
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def create_task(self, coro: Any, **named: Any) -> asyncio.Task[Any]:
        self.made["tasks"] += 1
        return asyncio.Task(coro, loop=self, **named)

    def create_future(self) -> asyncio.Future[Any]:
        self.made["futures"] += 1
        return asyncio.Future(loop=self)

    async def create_connection(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        pipe = Pipe(self._on_upstream_write)
        pipe.protocol = protocol_factory()
        pipe.protocol.connection_made(pipe)
        self.upstream_pipes.append(pipe)
        return pipe, pipe.protocol

    async def create_server(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        self.protocol_factory = protocol_factory

    def time(self) -> float:
        return self._now_s()

    def get_debug(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def add_signal_handler(self, *_: Any) -> None:  # type: ignore[override]
        """No signal is ever sent."""

    def remove_signal_handler(self, sig: int) -> bool:
        return True

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is skipped when it is due."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._faults.append(context)
