"""The numbers of all workers: of those that run, and of those that have ended.

A counter never falls while the service runs, whatever happens to its workers.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from cashier.metrics.layout import UnreadableStore
from cashier.metrics.reader import StoreReader
from cashier.metrics.snapshot import Snapshot, merged, without_gauges
from cashier.metrics.store import Store

_log = structlog.get_logger("cashier.ops")

PATTERN = "*.metrics"


class WorkerStores:
    """Reads the stores in the run directory. One thread uses it.

    `own`: what the supervisor itself counts, such as `cashier_worker_ends_total`.
    """

    def __init__(self, directory: Path | None, own: Store | None = None) -> None:
        self._directory = directory
        self._readers: dict[Path, StoreReader] = {}
        # What was read last: stands in for a file that cannot be read at the moment.
        self._last: dict[Path, Snapshot] = {}
        # Files that were added to `_ended`, or never were a store.
        self._ignored: set[Path] = set()
        self._reported: set[Path] = set()
        self._ended: Snapshot = {}
        self._own = own or Store()
        self._workers = self._own.gauge("cashier_workers")
        self._own.counter("cashier_worker_ends_total")  # in the text before it moves

    def __repr__(self) -> str:
        return f"<WorkerStores of {len(self._readers)} workers>"

    def snapshot(self) -> Snapshot:
        """The sum over all workers since the start of the service."""
        self.fold_ended()
        self._workers.set(len(self._readers))
        live = [self._read(path) for path in tuple(self._readers)]
        return merged((self._ended, *live, self._own.snapshot()))

    def fold_ended(self) -> None:
        """Keep the counters of workers that have ended, and remove their files."""
        self._find_new()
        for path, reader in tuple(self._readers.items()):
            if _has_ended(reader):
                self._ended = merged((self._ended, without_gauges(self._read(path))))
                self._forget(path)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _find_new(self) -> None:
        if self._directory is None:
            return
        try:
            paths = list(self._directory.glob(PATTERN))
        except OSError as error:
            self._report(self._directory, error)
            return
        for path in paths:
            if path not in self._readers and path not in self._ignored:
                try:
                    self._open(path)
                except OSError as error:
                    # Such as too many open files: it may work the next time.
                    self._report(path, error)
                except UnreadableStore as error:
                    # A store gets its name when it is whole.
                    self._ignored.add(path)
                    self._report(path, error)

    def _open(self, path: Path) -> None:
        reader = StoreReader(path)
        try:
            self._last[path] = reader.read()
        except BaseException:
            reader.close()
            raise
        self._readers[path] = reader

    def _read(self, path: Path) -> Snapshot:
        try:
            self._last[path] = self._readers[path].read()
        except (OSError, UnreadableStore) as error:
            self._report(path, error)
        return self._last[path]

    def _report(self, path: Path, error: Exception) -> None:
        """Once for each file: a scrape comes every few seconds."""
        if path not in self._reported:
            self._reported.add(path)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            _log.warning("a file with a worker's metrics cannot be read", file=path.name, reason=reason)

    def _forget(self, path: Path) -> None:
        self._readers.pop(path).close()
        del self._last[path]
        try:
            path.unlink(missing_ok=True)
        except OSError:
            # Its counters must not be added again.
            self._ignored.add(path)


def _has_ended(reader: StoreReader) -> bool:
    try:
        return reader.has_ended()
    except OSError:
        return False
