"""Pseudonyms of ids in records: the same id has the same one, in all records of a run.

Keyed, so that known ids do not lead to them, and the key ends with the run.
"""

from __future__ import annotations

import contextlib
import hmac
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

KEY_BYTES = 32
_KEY_FILE = "pseudonyms.key"
_DIGITS = 12


class Pseudonyms:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "<Pseudonyms>"

    def of(self, role: str, name: str) -> str:
        """`role` and `name` decide: a user and a card of the same name have two pseudonyms."""
        code = hmac.new(self._key, f"{role}\n{name}".encode(), sha256).hexdigest()
        return f"{role}_{code[:_DIGITS]}"

    def in_order(self, role: str, names: Iterable[str]) -> Mapping[str, str]:
        """The pseudonyms of several ids, which sort as the ids do: rules break ties by id.

        The number before the pseudonym is the place in this record.
        """
        ordered = sorted(set(names))
        width = len(str(len(ordered)))
        return {name: f"{place:0{width}}_{self.of(role, name)}" for place, name in enumerate(ordered, 1)}


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def key_of_run(directory: Path | None) -> bytes:
    """The key that the workers of one run share, made by the first of them.

    `directory`: theirs alone. A key of this process if there is none, or no room.
    """
    if directory is None:
        return new_key()
    path, unfinished = directory / _KEY_FILE, directory / f".{_KEY_FILE}-{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            return _checked(path.read_bytes())
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, new_key())
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)  # the first worker wins
        unfinished.unlink()
        return _checked(path.read_bytes())
    except OSError:
        return new_key()


def _checked(key: bytes) -> bytes:
    """Raises OSError for a key that a full disk has cut."""
    if len(key) != KEY_BYTES:
        raise OSError("the key of the run is not whole")
    return key
