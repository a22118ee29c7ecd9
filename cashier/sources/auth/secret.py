"""Secrets from a file or an environment variable. They appear in no text that this makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from cashier.wire.file_watch import FileWatch

_MAX_BYTES = 65_536
_T = TypeVar("_T")


class Secret(Generic[_T]):
    """`value`: made of the secret's bytes, and again when its file changes.

    `convert` gets the bytes without white space at the ends, and raises ValueError with a text that
    quotes none of them. ValueError names the key of the configuration.
    """

    def __init__(
        self,
        key: str,
        file: str | None,
        variable: str | None,
        convert: Callable[[bytes], _T],
        files: FileWatch,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._key = f"{key}_{'env' if file is None else 'file'}"
        self._convert = convert
        self.value: _T
        if file is not None:
            path = file
            try:
                files.watch((path,), lambda: self._read(path))
            except OSError as fault:
                raise ValueError(f"{self._key} {path!r}: {fault.strerror or type(fault).__name__}") from None
            return
        # Without its name, in whose place a secret may stand by mistake.
        if variable is None or not environ.get(variable):
            raise ValueError(f"{self._key} names a variable that is not set in the environment")
        self._take(os.fsencode(environ[variable]))

    def _read(self, path: str) -> None:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"{self._key} has more than {_MAX_BYTES} bytes")
        self._take(content)

    def _take(self, content: bytes) -> None:
        content = content.removeprefix(b"\xef\xbb\xbf").strip()  # of some editors
        if not content:
            raise ValueError(f"{self._key} is empty")
        try:
            self.value = self._convert(content)
        except ValueError as fault:
            raise ValueError(f"{self._key}: {fault}") from None

    def __repr__(self) -> str:
        return f"<Secret {self._key}>"
