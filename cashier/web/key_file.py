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
        self._why_unread = ""

    def __repr__(self) -> str:
        return f"<KeyFile {self._path}>"

    def read(self) -> str:
        """Raises OSError, UnicodeDecodeError."""
        self._seen = self._signature()
        return self._path.read_text("utf-8")

    def read_changed(self) -> str | None:
        """None if it has not changed or cannot be read. Logs a failure when its cause changes."""
        before = self._seen
        try:
            text = None if self._signature() == before else self.read()
        except (OSError, UnicodeDecodeError) as error:
            why = type(error).__name__
            if why != self._why_unread:
                _log.warning("the key set cannot be read again: the old keys stay", reason=why)
            # The cause may pass without a change of the file.
            self._seen, self._why_unread = None, why
            return None
        self._why_unread = ""
        return text

    def _signature(self) -> tuple[int, ...]:
        status = self._path.stat()
        return (status.st_mtime_ns, status.st_size, status.st_ino)
