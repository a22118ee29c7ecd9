"""The run directory of a service: what its processes share. It ends with the service.

In memory where the system offers that. Private, and locked while its owner lives: a start removes
the directories that killed services have left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from cashier.metrics import layout
from cashier.metrics.store import Store

_log = structlog.get_logger("cashier.ops")

# An unfinished directory is locked within moments.
_ABANDONED_S = 3600.0


def places() -> Iterator[Path]:
    """Where a run directory may be, the best place first."""
    yield Path("/dev/shm")  # noqa: S108 - the directory in it is private
    try:
        directory = tempfile.gettempdir()
    except FileNotFoundError:  # nothing else can be written, as in a container
        return
    yield Path(directory)


@contextlib.contextmanager
def run_directory(workers: int) -> Iterator[Path | None]:
    """A new directory, removed at the end. None, after a warning, if no place has room for it."""
    reasons = []
    for place in places():
        try:
            path, descriptor = _create(place, workers)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
            continue
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)
        return
    _log.warning("operators see no metrics: no place for the run directory", reasons=reasons)
    yield None


def worker_store(directory: Path | None) -> Store | None:
    """The store of this process in the run directory. None if it has none, or has no room."""
    if directory is None:
        return None
    try:
        return Store.create(directory / f"{os.getpid()}-{time.time_ns()}.metrics")
    except OSError as error:
        _log.warning("operators do not see the metrics of this worker", pid=os.getpid(), reason=error.strerror)
        return None


def _create(place: Path, workers: int) -> tuple[Path, int]:
    """The directory, and the descriptor that locks it. Raises OSError."""
    prefix = f"cashier-{os.getuid()}-"
    _remove_abandoned(place, prefix)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=place))
    descriptor = -1
    try:
        descriptor = _locked(unfinished)
        _require_room(unfinished, workers)
        # It gets its name when it is locked: one without a lock is abandoned.
        path = unfinished.with_name(unfinished.name.removeprefix("."))
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if descriptor >= 0:
            os.close(descriptor)
        raise
    return path, descriptor


def _locked(path: Path) -> int:
    """Raises OSError, if another process has the lock `BlockingIOError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require_room(directory: Path, workers: int) -> None:
    """Raises OSError unless every worker's store fits, and one more while a worker is replaced."""
    probe = directory / "room"
    descriptor = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, layout.SIZE * (workers + 1))
    finally:
        os.close(descriptor)
        probe.unlink()


def _remove_abandoned(place: Path, prefix: str) -> None:
    for path in place.glob(f"*{prefix}*"):
        is_unfinished = path.name.startswith(f".{prefix}")
        with contextlib.suppress(OSError):
            status = path.lstat()
            if status.st_uid != os.getuid() or not (is_unfinished or path.name.startswith(prefix)):
                continue
            if is_unfinished and time.time() - status.st_mtime < _ABANDONED_S:
                continue
            descriptor = _locked(path)
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)
