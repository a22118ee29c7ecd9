"""What an invalidation covers, and its message between workers. No I/O."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

SEPARATOR = "/"
# Longer than any key that is read or written here, and short enough for a message.
LONGEST_TEXT = 1024
_SENDABLE = re.compile(f"[^\ud800-\udfff]{{0,{LONGEST_TEXT}}}")


def segment_of(key: str) -> str:
    """The first segment of a key: `u_1` of `u_1/m_1/CNY/12800`."""
    return key.partition(SEPARATOR)[0]


def covers_key(prefix: str, key: str) -> bool:
    """Whether a prefix covers a key.

    One that ends in "/" covers whole segments: `u_1/` covers `u_1` and `u_1/CNY`, not `u_10`. Any
    other covers what starts with its text: `u_1` covers `u_10` too.
    """
    return key.startswith(prefix) or (prefix.endswith(SEPARATOR) and key == prefix[:-1])


class Invalidation(Struct, frozen=True):
    """Invalidates the answers of a source under one key, or under a prefix."""

    source: str
    key: str | None
    prefix: str | None

    @property
    def segment(self) -> str | None:
        """The one first segment of all keys that it covers; None if there may be several."""
        if self.key is not None:
            return segment_of(self.key)
        prefix = self.prefix or ""
        return segment_of(prefix) if SEPARATOR in prefix else None


class InvalidationMessage(Struct, frozen=True, array_like=True):
    """A message between workers on the channel.

    `sender`: the worker's id. `token`: identifies the message; empty in those of an earlier
    release, which does not know the versions of stored answers.
    """

    sender: bytes
    source: str
    key: str | None
    prefix: str | None
    token: bytes = b""


encode_message = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(InvalidationMessage).decode


def sendable(source: str, key: str | None, prefix: str | None) -> Invalidation:
    """The invalidation; for a text that no message can carry, one that covers more.

    Raises ValueError unless there is either a key or a prefix.
    """
    if (key is None) == (prefix is None):
        raise ValueError("either a key or a prefix is dropped")
    text = key if key is not None else prefix or ""
    match = _SENDABLE.match(text)
    start = match[0] if match is not None else ""
    return Invalidation(source, key, prefix) if start == text else Invalidation(source, None, start)
