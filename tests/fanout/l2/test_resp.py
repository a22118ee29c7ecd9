"""RESP: replies are the same however their bytes are cut, and hostile bytes end in one error."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from redis.connection import PythonRespSerializer

from cashier.fanout.l2.resp import (
    DEEPEST_LIST,
    LARGEST_REPLY,
    LONGEST_LINE,
    MalformedReplyError,
    NoScriptError,
    ReadOnlyError,
    ReplyParser,
    ResponseError,
    UnfitServerError,
    command,
    encoded,
)

Outcome = tuple[list[Any], bool]

LINE = st.binary(max_size=20).filter(lambda text: b"\r" not in text and b"\n" not in text)
REPLY = st.recursive(
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=40)),
    lambda replies: st.lists(replies, max_size=4),
    max_leaves=8,
)
# What looks like replies, so that all branches are reached.
NOISE = st.lists(
    st.sampled_from([b"$", b"*", b":", b"+", b"-", b"\r\n", b"\r", b"\n", b"0", b"-1", b"2", b"3", b"ab", b"9" * 11])
    | st.binary(max_size=3),
    max_size=20,
).map(b"".join)


def written(reply: Any) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case _:
            return b"*%d\r\n%b" % (len(reply), b"".join(map(written, reply)))


def parsed(pieces: list[bytes]) -> Outcome:
    """The replies as text, and whether the bytes ended in an error."""
    replies: list[Any] = []
    parser = ReplyParser()
    try:
        for piece in pieces:
            parser.feed(piece, replies.append)
    except MalformedReplyError:
        return [repr(reply) for reply in replies], True
    return [repr(reply) for reply in replies], False


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.lists(REPLY, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_replies_are_the_same_wherever_their_bytes_are_cut(replies: list[Any], places: list[int]) -> None:
    data = b"".join(map(written, replies))
    assert parsed(cut(data, places)) == ([repr(reply) for reply in replies], False)


@given(st.lists(REPLY, max_size=2), NOISE, st.lists(st.integers(0, 10_000), max_size=12))
def test_hostile_bytes_have_one_outcome_wherever_they_are_cut(
    replies: list[Any], noise: bytes, places: list[int]
) -> None:
    data = b"".join(map(written, replies)) + noise
    whole = parsed([data])
    assert whole[0][: len(replies)] == [repr(reply) for reply in replies], "complete replies before it are taken"
    assert parsed(cut(data, places)) == whole
    assert parsed([data[at : at + 1] for at in range(len(data))]) == whole


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"-ERR unknown command", ResponseError),
        (b"-OOM command not allowed", ResponseError),
        (b"-NOSCRIPT No matching script", NoScriptError),
        (b"-READONLY You can't write against a read only replica.", ReadOnlyError),
        (b"-LOADING Valkey is loading the dataset in memory", UnfitServerError),
        (b"-NOAUTH Authentication required.", UnfitServerError),
        (b"-WRONGPASS invalid username-password pair", UnfitServerError),
        (b"-\xff", ResponseError),
        (b"-", ResponseError),
    ],
)
def test_a_refusal_is_a_value_of_its_kind(line: bytes, kind: type[Exception]) -> None:
    replies: list[Any] = []
    ReplyParser().feed(line + b"\r\n+OK\r\n", replies.append)
    assert type(replies[0]) is kind
    assert str(replies[0]) == line[1:].decode("latin-1")
    assert replies[1:] == [b"OK"]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"%1\r\n",
        b"\r\n",
        b"$\r\n",
        b"$-2\r\n",
        b"$+1\r\n",
        b"$1_0\r\n",
        b"$ 1\r\na\r\n",
        b"$1\r\nab\r\n",
        b"*-2\r\n",
        b":1.5\r\n",
        b":--1\r\n",
        b":" + b"9" * 30 + b"\r\n",
        b"$%d\r\n" % (LARGEST_REPLY + 1),
        b"$99999999999\r\n",
        b"+" + b"x" * LONGEST_LINE,
        b"*1\r\n" * (DEEPEST_LIST + 1),
        b"*9999999999\r\n" + b"$1000000\r\n%b\r\n" % bytes(1_000_000) * 2,
        b"*9999999999\r\n" + b"+%b\r\n" % bytes(8000) * (LARGEST_REPLY // 8000 + 1),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_bytes_that_are_no_reply_or_beyond_the_bounds_are_refused(data: bytes) -> None:
    assert parsed([data]) == ([], True)
    assert parsed([data[:5], data[5:]]) == ([], True)


def test_a_large_text_in_many_pieces_is_joined_once() -> None:
    body = bytes(range(256)) * 4000
    pieces = cut(written(body), list(range(1400, len(body), 1400)))
    replies: list[Any] = []
    parser = ReplyParser()
    for piece in pieces[:-1]:
        parser.feed(piece, replies.append)
    assert len(parser._pieces) == len(pieces) - 1, "no piece is looked at before the last one"
    parser.feed(pieces[-1], replies.append)
    assert replies == [body]


@pytest.mark.parametrize(
    "parts", [("SET", b"\r\n", 0), (b"\x00\xff", "卡", -12), ("SET", b"", "a b"), ("PING",)], ids=repr
)
def test_a_command_is_written_as_another_client_writes_it(parts: tuple[bytes | int | str, ...]) -> None:
    encoder: Any = PythonRespSerializer(6000, lambda part: part if isinstance(part, bytes) else str(part).encode())
    assert command(*parts) == b"".join(encoder.pack(*parts))


def test_no_two_texts_are_encoded_alike() -> None:
    assert len({encoded(text) for text in ("\ud800", "?", "\ufffd", "卡", "")}) == 5
