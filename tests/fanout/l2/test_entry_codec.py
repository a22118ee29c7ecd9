"""The binary format of stored answers, and the rejection of anything else."""

from __future__ import annotations

import os
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.l2.entry_codec import LARGEST_BYTES, SKEW_MS, VERSION, StoredAnswer, pack, unpack
from cashier.fanout.l2.interface import CachedAnswer

NOW = 1_700_000_000_000


def stored(body: bytes = b'{"user_id": "u_1"}', not_found: bool = False, ttl_ms: int = 30_000) -> StoredAnswer:
    return StoredAnswer(not_found, body, NOW, ttl_ms)


def forged(version: int, flags: int, body: bytes) -> bytes:
    head = struct.pack(">BBQI", version, flags, NOW, 30_000)
    return head + struct.pack(">I", zlib.crc32(body, zlib.crc32(head))) + body


@given(st.binary(max_size=2000), st.booleans(), st.integers(0, 2**40), st.integers(0, 2**32 - 1))
def test_unpack_inverts_pack(body: bytes, not_found: bool, born_ms: int, ttl_ms: int) -> None:
    packed = StoredAnswer(not_found, body, born_ms, ttl_ms)
    assert unpack(pack(packed)) == packed


def test_a_long_body_is_deflated_if_that_helps_and_a_short_one_is_not() -> None:
    assert len(pack(stored(b"ab" * 1000))) < 200
    assert b"ab" * 200 in pack(stored(b"ab" * 200))
    noise = os.urandom(4000)
    assert noise in pack(stored(noise))


@given(st.binary(max_size=200))
def test_garbage_is_a_miss(value: bytes) -> None:
    assert unpack(value) is None


def test_another_version_or_an_unknown_flag_is_a_miss() -> None:
    assert unpack(forged(VERSION, 0, b"x")) is not None
    assert unpack(forged(VERSION + 1, 0, b"x")) is None
    assert unpack(forged(VERSION, 4, b"x")) is None


@pytest.mark.parametrize("body", [b"{}", b"ab" * 1000])
def test_a_truncated_or_altered_value_is_a_miss(body: bytes) -> None:
    value = pack(stored(body))
    for length in range(len(value)):
        assert unpack(value[:length]) is None
    for place in range(len(value)):
        assert unpack(value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]) is None
    assert unpack(value + b"x") is None


def test_a_body_that_would_inflate_beyond_the_bound_is_a_miss() -> None:
    assert unpack(forged(VERSION, 2, zlib.compress(bytes(LARGEST_BYTES)))) == stored(bytes(LARGEST_BYTES))
    assert unpack(forged(VERSION, 2, zlib.compress(bytes(LARGEST_BYTES + 1)))) is None
    assert unpack(forged(VERSION, 2, zlib.compress(bytes(100 * LARGEST_BYTES), 9))) is None
    assert unpack(forged(VERSION, 0, bytes(LARGEST_BYTES + 1))) is None


def test_an_incomplete_or_overlong_deflated_body_is_a_miss() -> None:
    deflated = zlib.compress(b"ab" * 1000)
    assert unpack(forged(VERSION, 2, deflated[:-1])) is None
    assert unpack(forged(VERSION, 2, deflated + b"more")) is None
    assert unpack(forged(VERSION, 2, b"not deflated")) is None


def test_an_entry_is_as_old_as_the_call_that_brought_it() -> None:
    answer = stored(not_found=True).at(NOW + 700)
    assert answer == CachedAnswer(True, b'{"user_id": "u_1"}', 700)


def test_an_entry_past_its_time_is_a_miss() -> None:
    assert stored(ttl_ms=1000).at(NOW + 999) is not None
    assert stored(ttl_ms=1000).at(NOW + 1000) is None


def test_an_entry_from_the_future_is_new_within_the_clock_skew_and_a_miss_beyond() -> None:
    early = stored().at(NOW - SKEW_MS)
    assert early is not None
    assert early.age_ms == 0
    assert stored().at(NOW - SKEW_MS - 1) is None
