"""The binary format of an answer in the shared store, validated on reading.

Pure; knows no store and no clock.

version, flags, born (ms since 1970), TTL (ms), CRC-32 of all else │ body, deflated if that helps
"""

from __future__ import annotations

import struct
import zlib

from msgspec import Struct

from cashier.fanout.l2.interface import CachedAnswer

VERSION = 1
LARGEST_BYTES = 1 << 20
# The largest clock difference between two machines. An answer from further in the future has no
# credible age.
SKEW_MS = 1000
# Below this size deflating saves less than a network packet.
_WORTH_DEFLATING_BYTES = 512
_NOT_FOUND = 1
_DEFLATED = 2
_HEAD = struct.Struct(">BBQI")
_CHECKSUM = struct.Struct(">I")
_BODY_AT = _HEAD.size + _CHECKSUM.size
_LONGEST_MS = 0xFFFFFFFF


class StoredAnswer(Struct, frozen=True):
    """An answer with the start of its call, and its time to live from then on."""

    not_found: bool
    body: bytes
    born_ms: int
    ttl_ms: int

    def at(self, now_ms: int) -> CachedAnswer | None:
        """The answer with its age at `now_ms`; None if it is too old, or from the future."""
        age_ms = now_ms - self.born_ms
        if not -SKEW_MS <= age_ms < self.ttl_ms:
            return None
        return CachedAnswer(self.not_found, self.body, max(age_ms, 0))


def pack(stored: StoredAnswer) -> bytes:
    body, flags = stored.body, _NOT_FOUND if stored.not_found else 0
    if len(body) > _WORTH_DEFLATING_BYTES:
        deflated = zlib.compress(body, 1)
        if len(deflated) < len(body):
            body, flags = deflated, flags | _DEFLATED
    head = _HEAD.pack(VERSION, flags, max(stored.born_ms, 0), min(max(stored.ttl_ms, 0), _LONGEST_MS))
    return b"".join((head, _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(head))), body))


def unpack(value: bytes) -> StoredAnswer | None:
    """None for anything but a complete `pack` of this version of at most `LARGEST_BYTES`."""
    if not _BODY_AT <= len(value) <= LARGEST_BYTES + _BODY_AT or value[0] != VERSION:
        return None
    _, flags, born_ms, ttl_ms = _HEAD.unpack_from(value)
    body: bytes | None = value[_BODY_AT:]
    (checksum,) = _CHECKSUM.unpack_from(value, _HEAD.size)
    if flags > (_NOT_FOUND | _DEFLATED) or checksum != zlib.crc32(value[_BODY_AT:], zlib.crc32(value[: _HEAD.size])):
        return None
    if flags & _DEFLATED:
        body = _inflate(value[_BODY_AT:])
    return None if body is None else StoredAnswer(bool(flags & _NOT_FOUND), body, born_ms, ttl_ms)


def _inflate(deflated: bytes) -> bytes | None:
    """Inflate at most `LARGEST_BYTES`, regardless of the size it claims.

    None if it is invalid or larger.
    """
    decompressor = zlib.decompressobj()
    try:
        body = decompressor.decompress(deflated, LARGEST_BYTES)
    except zlib.error:
        return None
    return body if decompressor.eof and not decompressor.unused_data else None
