"""Files that are read again when they change: certificates, keys and tokens that something rotates.

A thread looks once a second, because a file system can hang. It is a daemon: then the program must
still be able to end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

import structlog

CHECK_S = 1.0

_log = structlog.get_logger("cashier")
# Of each file what changes with its content, also if it is replaced or a link is moved. None: there
# is no such file.
_State = tuple[tuple[int, int, int, int] | None, ...]


class FileWatch:
    """Open it to follow the files. What cannot be read again stays in use as it was."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []
        self._stop: threading.Event | None = None

    def watch(self, paths: Iterable[str], load: Callable[[], None]) -> None:
        """Call `load` now, and again in a thread whenever one of the files has changed.

        `load` raises OSError or ValueError, with a text without secrets, and must then have changed
        nothing. The first call raises it to the caller.
        """
        watched = _Watched(tuple(paths), load)
        load()
        self._watched.append(watched)

    async def open(self) -> None:
        if self._watched:
            self._stop = threading.Event()
            threading.Thread(target=self._follow, args=(self._stop,), name="file-watch", daemon=True).start()

    async def close(self) -> None:
        if self._stop is not None:
            self._stop.set()

    def _follow(self, stop: threading.Event) -> None:
        while not stop.wait(CHECK_S):
            self.check()

    def check(self) -> None:
        """Load what has changed. Blocks."""
        for watched in self._watched:
            watched.check()

    def __repr__(self) -> str:
        return f"<FileWatch {len(self._watched)} loads>"


class _Watched:
    __slots__ = ("_load", "_paths", "_state", "_unread")

    def __init__(self, paths: tuple[str, ...], load: Callable[[], None]) -> None:
        self._paths = paths
        self._load = load
        # Before the files are read: a change meanwhile must show.
        self._state = _state_of(paths)
        self._unread: str | None = None

    def check(self) -> None:
        """Load what has changed, or could not be read at the last change.

        The cause of that may pass without a change: a process without a file left to open.
        """
        state, unread = _state_of(self._paths), self._unread
        if state == self._state and unread is None:
            return
        is_change, self._state = state != self._state, state
        try:
            self._load()
        except Exception as fault:  # noqa: BLE001 - one file must not end the watch of all others
            reason = str(fault) if isinstance(fault, ValueError) else type(fault).__name__
            if isinstance(fault, OSError) and fault.strerror:
                reason = fault.strerror
            self._unread = reason if isinstance(fault, OSError) or isinstance(fault.__cause__, OSError) else None
            if is_change or reason != unread:
                _log.warning(
                    "changed files cannot be used; the last ones stay in use", files=self._paths, reason=reason
                )
        else:
            self._unread = None
            _log.info("changed files are in use", files=self._paths)


def _state_of(paths: tuple[str, ...]) -> _State:
    return tuple(map(_stat, paths))


def _stat(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
