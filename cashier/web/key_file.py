"""The file of a key set, which an operator replaces while the service runs."""

from __future__ import annotations

from pathlib import Path

import structlog

_log = structlog.get_logger("cashier.web")


class KeyFile:
    """Text of `[auth] jwks_file`. The file is small and local: it is read in the event loop."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return f"<KeyFile {self._path}>"

    def read(self) -> str:
        """Raises OSError, UnicodeDecodeError."""
        self._seen = self._signature()
        return self._path.read_text("utf-8")

    def read_changed(self) -> str | None:
        """None if it has not changed, or cannot be read now: then a line of the log says so."""
        before = self._seen
        try:
            return None if self._signature() == before else self.read()
        except (OSError, UnicodeDecodeError) as error:
            if before is not None or self._seen is not None:
                _log.warning("the key set cannot be read again: the old keys stay", reason=type(error).__name__)
            self._seen = None
            return None

    def _signature(self) -> tuple[int, ...]:
        status = self._path.stat()
        return (status.st_mtime_ns, status.st_size, status.st_ino)
