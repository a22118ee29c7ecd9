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


class QueuedInvalidation(Struct, frozen=True):
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
    release, which does not know the versions of stored answers; `FOR_EARLIER_RELEASES` in those
    that this one ignores.
    """

    sender: bytes
    source: str
    key: str | None
    prefix: str | None
    token: bytes = b""


FOR_EARLIER_RELEASES = b"\0"

encode_message = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(InvalidationMessage).decode


def messages(sender: bytes, invalidation: QueuedInvalidation, token: bytes) -> list[bytes]:
    """What to publish, in this order.

    For earlier releases `u_1/` does not cover `u_1`, so they get that key besides.
    """
    source, key, prefix = invalidation.source, invalidation.key, invalidation.prefix
    encoded = [encode_message(InvalidationMessage(sender, source, key, prefix, token))]
    if prefix is not None and prefix.endswith(SEPARATOR):
        extra = InvalidationMessage(sender, source, prefix[:-1], None, FOR_EARLIER_RELEASES)
        encoded.insert(0, encode_message(extra))
    return encoded


def sendable(source: str, key: str | None, prefix: str | None) -> QueuedInvalidation:
    """The invalidation; for a text that no message can carry, one that covers more.

    Raises ValueError unless there is either a key or a prefix.
    """
    if (key is None) == (prefix is None):
        raise ValueError("either a key or a prefix is dropped")
    text = key if key is not None else prefix or ""
    match = _SENDABLE.match(text)
    start = match[0] if match is not None else ""
    return QueuedInvalidation(source, key, prefix) if start == text else QueuedInvalidation(source, None, start)
