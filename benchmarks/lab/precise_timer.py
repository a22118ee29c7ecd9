"""Callbacks at precise times on an event loop, by a Linux timerfd.

uvloop's own timers count whole milliseconds, which is too coarse to measure 0.3 ms.
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
    """A heap of due times on the clock of `time.perf_counter()`, which the timerfd also uses.

    Never calls early; calls with equal times keep their order.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._armed_s = float("inf")
        self._timer = _TimerSetting()
        self._loop = loop
        self._file = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._file, self._expired)

    def __repr__(self) -> str:
        return f"PreciseTimer({len(self._due)} pending)"

    def __len__(self) -> int:
        return len(self._due)

    def at(self, due_s: float, call: Callable[[], None]) -> None:
        """Schedule `call`. If `due_s` has passed it runs in the next turn of the loop, never within
        this call.
        """
        heapq.heappush(self._due, (due_s, next(self._order), call))
        if due_s < self._armed_s:
            self._arm(due_s)

    def close(self) -> None:
        """Drop all pending calls."""
        self._due.clear()
        self._loop.remove_reader(self._file)
        os.close(self._file)

    def _expired(self) -> None:
        with suppress(BlockingIOError):  # the timer was set again since the loop saw it
            os.read(self._file, 8)
        self._armed_s = float("-inf")  # calls added by the callbacks are armed below, once
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
        # Rounded up, because a timer that expires early would have to be set again. Zero would
        # disarm it.
        value.s, value.ns = divmod(max(1, int(due_s * 1e9) + 1), 1_000_000_000)
        if _LIBC.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(self._timer), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
