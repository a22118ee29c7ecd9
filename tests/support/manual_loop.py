"""An event loop that is turned by hand, over a clock that stands still while anything runs, and pipes in the place of sockets.

Nothing here waits, opens a socket or looks at the machine's clock, so the same work takes the same steps every time. What the program
asks of its loop is counted in `made`; what the outside world does to it (bytes that come, time that passes) is not.
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
Written = Callable[["Pipe", bytes], None]


class Clock:
    """Every clock of the program at once: it moves only when it is told to. `looks`: how often anybody looked."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000_000_000_000
        self.looks = 0

    def ns(self) -> int:
        self.looks += 1
        return self.now_ns

    def s(self) -> float:
        self.looks += 1
        return self.now_ns / 1e9


class Pipe(asyncio.Transport):
    """One end of a connection. What is written goes to `written`, at once."""

    def __init__(self, written: Written) -> None:
        super().__init__()
        self._written = written
        self.protocol: Any = None
        self.closing = False
        self.writes = 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.writes += 1
        self._written(self, bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class HandTurned(asyncio.AbstractEventLoop):
    """`upstream` hears what is written to connections that the program opens. `serving`: makes a protocol for each that it accepts."""

    def __init__(self, clock: Clock, upstream: Written) -> None:
        self.made: Counter[str] = Counter()
        self.upstream_pipes: list[Pipe] = []
        self.serving: Callable[[], Any] | None = None
        self._clock: Final = clock
        self._upstream = upstream
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = count()
        self._faults: list[dict[str, Any]] = []

    # From outside

    def come(self, after_ms: int, callback: Callable[..., object], *args: object) -> None:
        """Something of the outside world, which is nobody's cost."""
        due_s = self._now_s() + after_ms / 1000
        heapq.heappush(self._timers, (due_s, next(self._order), asyncio.TimerHandle(due_s, callback, args, self)))

    def accept(self, written: Written) -> Pipe:
        """A client connects."""
        assert self.serving is not None
        pipe = Pipe(written)
        pipe.protocol = self.serving()
        pipe.protocol.connection_made(pipe)
        return pipe

    def pass_ms(self, ms: int) -> None:
        """Do everything that is ready or due within that time."""
        until_ns = self._clock.now_ns + ms * 1_000_000
        self._turn()
        while self._timers and round(self._timers[0][0] * 1e9) <= until_ns:
            self._clock.now_ns = max(self._clock.now_ns, round(self._timers[0][0] * 1e9))
            self._ready.append(heapq.heappop(self._timers)[2])
            self._turn()
        self._clock.now_ns = until_ns
        assert not self._faults, self._faults

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """In as much time as it takes."""
        asyncio._set_running_loop(self)
        task = self.create_task(work)
        while not task.done():
            self.pass_ms(1)
        found: Result = task.result()
        return found

    def _turn(self) -> None:
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _now_s(self) -> float:
        return self._clock.now_ns / 1e9

    # For the program: as much as it uses. Callbacks are typed more loosely than typeshed does, whose variadic types gain nothing here.

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        self.made["turns asked for"] += 1
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
        pipe = Pipe(self._upstream)
        pipe.protocol = protocol_factory()
        pipe.protocol.connection_made(pipe)
        self.upstream_pipes.append(pipe)
        return pipe, pipe.protocol

    async def create_server(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        self.serving = protocol_factory

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
        """No signal comes."""

    def remove_signal_handler(self, sig: int) -> bool:
        return True

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time has come."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._faults.append(context)
