"""How an answer lies in a shared store: its bytes, and reading them without believing them. Pure; knows no store and no clock.

version, flags, born (ms since 1970), time to live (ms), CRC-32 of all else │ body, deflated where that helps
"""

from __future__ import annotations

import struct
import zlib

from msgspec import Struct

from cashier.fanout.l2.interface import CachedAnswer

VERSION = 1
LARGEST_BYTES = 1 << 20
# Clocks of two machines differ by so much at most; an answer from further in the future has no age that could be believed.
SKEW_MS = 1000
# Below this a deflated body saves less than a network packet.
_WORTH_DEFLATING_BYTES = 512
_NONE = 1
_DEFLATED = 2
_HEAD = struct.Struct(">BBQI")
_SUM = struct.Struct(">I")
_BODY_AT = _HEAD.size + _SUM.size
_LONGEST_MS = 0xFFFFFFFF


class StoredAnswer(Struct, frozen=True):
    """An answer with the moment that its call began, and for how long from then it may be used."""

    not_found: bool
    body: bytes
    born_ms: int
    ttl_ms: int

    def at(self, now_ms: int) -> CachedAnswer | None:
        """As it is at `now_ms`; None where it is too old, or of a time that has not come."""
        age_ms = now_ms - self.born_ms
        if not -SKEW_MS <= age_ms < self.ttl_ms:
            return None
        return CachedAnswer(self.not_found, self.body, max(age_ms, 0))


def pack(stored: StoredAnswer) -> bytes:
    body, flags = stored.body, _NONE if stored.not_found else 0
    if len(body) > _WORTH_DEFLATING_BYTES:
        deflated = zlib.compress(body, 1)
        if len(deflated) < len(body):
            body, flags = deflated, flags | _DEFLATED
    head = _HEAD.pack(VERSION, flags, max(stored.born_ms, 0), min(max(stored.ttl_ms, 0), _LONGEST_MS))
    return b"".join((head, _SUM.pack(zlib.crc32(body, zlib.crc32(head))), body))


def unpack(value: bytes) -> StoredAnswer | None:
    """None for anything that `pack` of this version did not make, is not whole, or holds more than `LARGEST_BYTES`."""
    if not _BODY_AT <= len(value) <= LARGEST_BYTES + _BODY_AT or value[0] != VERSION:
        return None
    _, flags, born_ms, ttl_ms = _HEAD.unpack_from(value)
    body: bytes | None = value[_BODY_AT:]
    (told,) = _SUM.unpack_from(value, _HEAD.size)
    if flags > (_NONE | _DEFLATED) or told != zlib.crc32(value[_BODY_AT:], zlib.crc32(value[: _HEAD.size])):
        return None
    if flags & _DEFLATED:
        body = _inflated(value[_BODY_AT:])
    return None if body is None else StoredAnswer(bool(flags & _NONE), body, born_ms, ttl_ms)


def _inflated(deflated: bytes) -> bytes | None:
    """Never more than the bound is made of it, whatever it promises to become."""
    inflating = zlib.decompressobj()
    try:
        body = inflating.decompress(deflated, LARGEST_BYTES)
    except zlib.error:
        return None
    return body if inflating.eof and not inflating.unused_data else None
