"""Taking answers apart, without sockets: the same bytes are the same answer, however they are cut."""

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
    cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=5))})
    extension = draw(st.sampled_from([b"", b";a=b", b';a="b c"']))
    chunks = [b"%x%s\r\n%s\r\n" % (end - start, extension, body[start:end]) for start, end in pairwise(cuts)]
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n" + draw(fields) + b"\r\n"


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, Response]:
    """What an upstream may say, and what it means."""
    status = draw(st.sampled_from([200, 201, 404, 429, 500, 503]))
    retry = draw(st.sampled_from([None, 0, 7]))
    body = draw(bodies)
    told = b"Retry-After: %d\r\n" % retry if retry is not None else b""
    framed = draw(st.one_of(st.just(b"Content-Length: %d\r\n\r\n%s" % (len(body), body)), chunked(body)))
    said = draw(interims) + b"HTTP/1.1 %d Whatever\r\n" % status + draw(fields) + told + framed
    return said, Response(status, body, None if retry is None else float(retry))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(answers(), min_size=1, max_size=3), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_an_answer_is_the_same_however_it_is_cut(
    told: list[tuple[bytes, Response]], places: list[int], bytewise: bool
) -> None:
    reading = ResponseParser("somewhere", BOUNDS)
    for said, meant in told:
        pieces = [bytes((byte,)) for byte in said] if bytewise else cut(said, places)
        *early, last = [reading.feed(piece) for piece in pieces]
        assert not any(early)
        assert last == meant
        assert reading.reusable
        assert not reading.started


@given(answers(), st.binary(min_size=1, max_size=50), st.lists(st.integers(0, 10_000), max_size=5))
def test_what_follows_an_answer_in_one_piece_changes_nothing_but_the_connection(
    told: tuple[bytes, Response], more: bytes, places: list[int]
) -> None:
    said, meant = told
    reading = ResponseParser("somewhere", BOUNDS)
    pieces = cut(said, places)
    outcomes = [reading.feed(piece) for piece in [*pieces[:-1], pieces[-1] + more]]
    assert outcomes[-1] == meant
    # llhttp passes over blank lines between answers: they can be nobody's answer.
    assert reading.reusable == (not more.strip(b"\r\n"))


@given(st.binary(max_size=400), st.lists(st.integers(0, 10_000), max_size=5))
def test_noise_is_an_answer_or_garbled_and_nothing_else(noise: bytes, places: list[int]) -> None:
    reading = ResponseParser("somewhere", BOUNDS)
    try:
        outcomes = [reading.feed(piece) for piece in cut(b"HTTP/1.1 200 OK\r\n" + noise, places)]
    except Garbled:
        return
    assert all(outcome is None or isinstance(outcome, Response) for outcome in outcomes)


def test_a_bug_in_a_callback_is_not_blamed_on_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(_self: ResponseParser) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(ResponseParser, "on_headers_complete", buggy)
    with pytest.raises(LookupError, match="ours"):
        ResponseParser("somewhere", BOUNDS).feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("said", "meant"),
    [(b"0", 0.0), (b"120", 120.0), (b"-1", None), (b"1.5", None), (b"", None), (b"9" * 5000, None), (b"\xb2", None)],
    ids=repr,
)
def test_retry_after_is_whole_seconds_or_nothing(said: bytes, meant: float | None) -> None:
    assert parse_retry_after(said) == meant
