"""The response parser without sockets: equal bytes give equal answers, however they are split."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.source_errors import Garbled
from cashier.wire.response_parser import ResponseBounds, ResponseParser, parse_retry_after
from cashier.wire.transport import Response

BOUNDS = ResponseBounds(max_head_bytes=4096, max_headers=20, max_body_bytes=2048)

bodies = st.binary(max_size=600)
tokens = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,10}", fullmatch=True).map(lambda name: f"X-{name}".encode())
values = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True).map(str.encode)
fields = st.lists(st.tuples(tokens, values), max_size=5).map(
    lambda pairs: b"".join(b"%s: %s\r\n" % pair for pair in pairs)
)
interims = st.lists(
    st.sampled_from([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]), max_size=3
).map(b"".join)


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    edges = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=5))})
    extension = draw(st.sampled_from([b"", b";a=b", b';a="b c"']))
    chunks = [b"%x%s\r\n%s\r\n" % (end - start, extension, body[start:end]) for start, end in pairwise(edges)]
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n" + draw(fields) + b"\r\n"


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, Response]:
    """The bytes of an answer, and the parsed answer."""
    status = draw(st.sampled_from([200, 201, 404, 429, 500, 503]))
    retry = draw(st.sampled_from([None, 0, 7]))
    body = draw(bodies)
    retry_after = b"Retry-After: %d\r\n" % retry if retry is not None else b""
    framed = draw(st.one_of(st.just(b"Content-Length: %d\r\n\r\n%s" % (len(body), body)), chunked(body)))
    data = draw(interims) + b"HTTP/1.1 %d Reason\r\n" % status + draw(fields) + retry_after + framed
    return data, Response(status, body, None if retry is None else float(retry))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(position % (len(data) + 1) for position in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(answers(), min_size=1, max_size=3), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_an_answer_parses_the_same_however_it_is_split(
    drawn: list[tuple[bytes, Response]], cuts: list[int], bytewise: bool
) -> None:
    parser = ResponseParser("somewhere", BOUNDS)
    for data, expected in drawn:
        pieces = [bytes((byte,)) for byte in data] if bytewise else split(data, cuts)
        *early, last = [parser.feed(piece) for piece in pieces]
        assert not any(early)
        assert last == expected
        assert parser.reusable
        assert not parser.started


@given(answers(), st.binary(min_size=1, max_size=50), st.lists(st.integers(0, 10_000), max_size=5))
def test_data_after_an_answer_only_makes_the_connection_unfit(
    drawn: tuple[bytes, Response], surplus: bytes, cuts: list[int]
) -> None:
    data, expected = drawn
    parser = ResponseParser("somewhere", BOUNDS)
    pieces = split(data, cuts)
    outcomes = [parser.feed(piece) for piece in [*pieces[:-1], pieces[-1] + surplus]]
    assert outcomes[-1] == expected
    # llhttp skips blank lines between answers, which can be no part of one.
    assert parser.reusable == (not surplus.strip(b"\r\n"))


@given(st.binary(max_size=400), st.lists(st.integers(0, 10_000), max_size=5))
def test_random_bytes_are_an_answer_or_garbled(noise: bytes, cuts: list[int]) -> None:
    parser = ResponseParser("somewhere", BOUNDS)
    try:
        outcomes = [parser.feed(piece) for piece in split(b"HTTP/1.1 200 OK\r\n" + noise, cuts)]
    except Garbled:
        return
    assert all(outcome is None or isinstance(outcome, Response) for outcome in outcomes)


def test_a_bug_in_a_callback_is_not_reported_as_garbled(monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(_self: ResponseParser) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(ResponseParser, "on_headers_complete", buggy)
    with pytest.raises(LookupError, match="ours"):
        ResponseParser("somewhere", BOUNDS).feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"0", 0.0), (b"120", 120.0), (b"-1", None), (b"1.5", None), (b"", None), (b"9" * 5000, None), (b"\xb2", None)],
    ids=repr,
)
def test_retry_after_is_whole_seconds_or_none(data: bytes, expected: float | None) -> None:
    assert parse_retry_after(data) == expected
