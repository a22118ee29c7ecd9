"""Calls at precise times on an event loop, on a Linux timerfd. uvloop's own timers count whole milliseconds: too coarse to measure 0.3 ms.

Nothing else lives here: what is called, and why then, is the caller's.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
import time
from collections.abc import Callable
from contextlib import suppress

_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _TimerSetting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class PreciseTimer:
    """A heap of due times of `time.perf_counter()`, which on Linux is the clock that the timer counts. Never early, equal ones in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._armed_s = float("inf")
        self._timer = _TimerSetting()
        self._loop = loop
        self._file = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._file, self._ring)

    def __repr__(self) -> str:
        return f"Alarm({len(self._due)} to come)"

    def __len__(self) -> int:
        return len(self._due)

    def at(self, due_s: float, call: Callable[[], None]) -> None:
        """Calls from the loop, as soon as it can from then on; at once where that has passed, but never from within this call."""
        heapq.heappush(self._due, (due_s, next(self._order), call))
        if due_s < self._armed_s:
            self._arm(due_s)

    def close(self) -> None:
        """What has not been called will not be."""
        self._due.clear()
        self._loop.remove_reader(self._file)
        os.close(self._file)

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # set anew since the loop was told
            os.read(self._file, 8)
        self._armed_s = float("-inf")  # whatever is added meanwhile is armed below, once
        now_s = time.perf_counter()
        try:
            while self._due and self._due[0][0] <= now_s:
                heapq.heappop(self._due)[2]()
        finally:
            self._armed_s = float("inf")
            if self._due:
                self._arm(self._due[0][0])

    def _arm(self, due_s: float) -> None:
        self._armed_s = due_s
        value = self._timer.value
        # Rounded up: a timer that goes off before its call is due would have to be set again. Zero would mean: never.
        value.s, value.ns = divmod(max(1, int(due_s * 1e9) + 1), 1_000_000_000)
        if _LIBC.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(self._timer), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
