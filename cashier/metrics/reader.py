"""Reads the file of a store while another process writes it, and after that process has ended."""

from __future__ import annotations

import fcntl
import os

from cashier.metrics import layout
from cashier.metrics.snapshot import Snapshot


class StoreReader:
    """The file of a store. Keeps it open, so it does not need its name any more.

    Reads and does not map: a mapped file that is truncated kills its reader.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises OSError."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        # The directory only grows, so what was read of it holds.
        self._entries: list[layout.Entry] = []
        self._read_bytes = 0
        self._used_cells = 0

    def has_ended(self) -> bool:
        """Whether the writer has ended: it holds a lock until then. Raises OSError."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def read(self) -> Snapshot:
        """Raises OSError, `UnreadableStore`."""
        length = layout.directory_length(os.pread(self._descriptor, layout.HEADER_BYTES, 0))
        if length > self._read_bytes:
            self._extend(length)
        # After the directory, so every entry has its cells.
        cells = self._bytes(8 * self._used_cells, layout.CELLS_AT)
        return layout.snapshot_of(self._entries, memoryview(cells).cast("q"))

    def close(self) -> None:
        os.close(self._descriptor)

    def _extend(self, length: int) -> None:
        entries = list(
            layout.entries_in(self._bytes(length - self._read_bytes, layout.DIRECTORY_AT + self._read_bytes))
        )
        self._entries += entries
        self._read_bytes = length
        self._used_cells = max((entry.first + entry.cells for entry in self._entries), default=0)

    def _bytes(self, length: int, at: int) -> bytes:
        read = os.pread(self._descriptor, length, at)
        if len(read) < length:
            raise layout.UnreadableStore("the file is truncated")
        return read
