"""Differential fuzz of the response parser: one segment against bytewise, against h11, and a parser
that keeps heads against a new one.

A fixed set of cases by default; `--proof=N` mutates for N minutes with a new seed.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from random import Random

import h11
import pytest

from cashier.source_errors import Garbled
from cashier.wire import response_parser
from cashier.wire.response_parser import ResponseBounds, ResponseParser
from cashier.wire.transport import Response
from tests.support.seeds import draws_fresh_cases

BOUNDS = ResponseBounds(max_head_bytes=4096, max_headers=20, max_body_bytes=2048)
CASES = 3000
STARTS = (
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 404 Not Found",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 503 ",
)
INTERIMS = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
FIELDS = (
    b"Content-Length: 5", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Connection: close", b"X: y",
    b"Connection: keep-alive", b"Retry-After: 1", b"X-Request-Id: r", b"Content-Encoding: identity",
)  # fmt: skip
# `%d` stands for the size of the body.
LENGTHS = (
    *(b"Content-Length: %d",) * 6, b"content-length:%d", b"Content-Length: 0%d", b"Content-Length:  %d ",
    b"X: y\r\nContent-Length: %d\r\nX-Request-Id: s", b"X: y\r\n Content-Length: 3\r\nContent-Length: %d",
    b"Content-Length: %d\r\nX: Content-Length: 3", b"Content-Length: 3\r\nContent-Length: %d",
)  # fmt: skip
BODIES = (b"hello", b"", b"5\r\nhello\r\n0\r\n\r\n", b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n", b"0\r\n\r\n")
PIECES = (
    b"\t", b" ", b"\r\n", b"\n", b"\r", b"\x00", b"\x0b", b"\x7f", b"\xff", b",", b";", b":", b"+", b"-", b"0", b"5",
    b"chunked", b"\r\n\r\n", b"\r\n X", b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
    b"HTTP/1.1 200 OK\r\n",
)  # fmt: skip
LINE_END_BEFORE = re.compile(rb"\A[\r\n]|HTTP/1\.[01] 1[0-9]{2}[^\r]*\r\n(?:[^\r]+\r\n)*\r\n[\r\n]")
CONTROL_IN_REASON = re.compile(rb"HTTP/1\.[01] [0-9]{3} [^\r\n]*[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def mutated(random: Random) -> bytes:
    """An answer with up to three insertions, deletions, replacements or repetitions."""
    fields = b"".join(field + b"\r\n" for field in random.sample(FIELDS, random.randrange(4)))
    interim = random.choice(INTERIMS) if random.random() < 0.1 else b""
    return damaged(random, interim + random.choice(STARTS) + b"\r\n" + fields + b"\r\n" + random.choice(BODIES))


def damaged(random: Random, data: bytes) -> bytes:
    for _ in range(random.randrange(4)):
        position = random.randrange(len(data) + 1)
        end = position + random.choice((0, 0, 1, 1, 2, 5))
        piece = random.choice(PIECES) if random.random() < 0.8 else data[position:end] * 2
        data = data[:position] + piece + data[end:]
    return data


def parsed(pieces: list[bytes]) -> tuple[int, bytes] | str:
    parser = ResponseParser("somewhere", BOUNDS)
    for piece in pieces:
        try:
            answer = parser.feed(piece)
        except Garbled:
            return "garbled"
        if answer is not None:
            return answer.status, answer.body
    return "waits"


def parsed_by_h11(data: bytes) -> tuple[int, bytes] | str:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    status, body = 0, b""
    try:
        while True:
            match client.next_event():
                case h11.Response(status_code=code, headers=headers):
                    status = code
                    if code not in (204, 304) and not {b"content-length", b"transfer-encoding"} & dict(headers).keys():
                        return "garbled"  # a body that ends with the connection
                case h11.Data(data=part):
                    body += bytes(part)
                case h11.EndOfMessage():
                    return status, body
                case h11.NEED_DATA:
                    return "waits"
                case h11.InformationalResponse(status_code=101):
                    return "garbled"
    except h11.RemoteProtocolError:
        return "garbled"


def check(data: bytes) -> str:
    outcome = parsed([data])
    assert parsed([data[position : position + 1] for position in range(len(data))]) == outcome, data
    reference = parsed_by_h11(data)
    if isinstance(outcome, tuple) and isinstance(reference, tuple):
        assert outcome == reference, data
    elif outcome != "garbled" and reference != "waits":
        # llhttp, unlike h11, skips line ends before an answer and takes any reason phrase.
        assert LINE_END_BEFORE.search(data) or CONTROL_IN_REASON.search(data), data
    return outcome if isinstance(outcome, str) else "answered"


def check_again(random: Random) -> str:
    """Parse an answer after one with nearly the same head; how it differs and ends is random."""
    head = random.choice((*STARTS[:1] * 9, *STARTS, b"\r\n" + STARTS[0], INTERIMS[0] + STARTS[0])) + b"\r\n"
    fields = [*random.sample(FIELDS[2:], random.choice((0, 0, 0, 1, 2))), random.choice(LENGTHS)]
    head += b"".join(field + b"\r\n" for field in random.sample(fields, len(fields))) + b"\r\n"
    sizes = (random.randrange(40), random.choice((1, 9, 30, 30, 2048, 2049)))
    first, data = (head.replace(b"%d", b"%d" % size) + b"\r\n" * (size // 2) + b"b" * (size % 2) for size in sizes)
    bounds = random.choice((BOUNDS, ResponseBounds(random.randrange(38, 60), max_headers=3, max_body_bytes=2048)))
    parser = ResponseParser("somewhere", bounds)
    outcomes(parser, [first + random.choice((b"", b"", b"\r\n", b"x"))])
    kept = bool(parser._kept_start)
    if parser.started or not parser.reusable:
        return "unfit"
    data = data if random.random() < 0.3 else damaged(random, data)
    cut = random.randrange(len(data) + 1) if random.random() < 0.3 else 0
    pieces = [piece for piece in (data[:cut], data[cut:]) if piece]
    parsed = parser._parsed
    seen = outcomes(ResponseParser("somewhere", bounds), pieces)
    assert outcomes(parser, pieces) == seen, (first, pieces)
    if kept and seen and isinstance(seen[-1], tuple):
        return "cut" if parser._parsed == parsed else "parsed"
    return "other"


def outcomes(parser: ResponseParser, pieces: list[bytes]) -> list[object]:
    """All that a connection reads of a parser about answers."""
    seen: list[object] = []
    for piece in pieces:
        try:
            answer = parser.feed(piece)
        except Garbled as garbled:
            return [*seen, str(garbled)]
        if answer is not None:
            seen.append((answer, parser.reusable, parser.request_ids, parser.retry_after))
    return seen


def fuzz(seed: int, seconds: float, check: Callable[[Random], str]) -> Counter[str]:
    """Check `CASES` cases, and further ones until the time is over. Count the outcomes."""
    random, ends_s = Random(seed), time.monotonic() + seconds
    counts: Counter[str] = Counter()
    while counts.total() < CASES or time.monotonic() < ends_s:
        try:
            counts[check(random)] += 1
        except AssertionError as difference:
            raise AssertionError(f"seed {seed}, case {counts.total()}: {difference}") from None
    return counts


def test_mutated_answers_have_one_outcome_in_one_segment_bytewise_and_by_the_reference() -> None:
    assert fuzz(1, 0, lambda random: check(mutated(random))).keys() == {"answered", "garbled", "waits"}


def test_a_parser_that_keeps_heads_parses_as_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_parser, "KEEP_EVERY", 1)
    counts = fuzz(1, 0, check_again)
    assert counts["cut"] > 100
    assert counts["parsed"] > 100


def test_the_end_of_an_answer_in_two_pieces_is_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_parser, "KEEP_EVERY", 1)
    parser = ResponseParser("somewhere", BOUNDS)
    begin, end = b"HTTP/1.1 200 OK\r\nX: y", b"\r\nContent-Length: 5\r\n\r\nhello"
    assert outcomes(parser, [begin, end])
    assert outcomes(parser, [end]) == ["somewhere: Expected HTTP/, RTSP/ or ICE/"]


def test_an_answer_in_a_body_is_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_parser, "KEEP_EVERY", 1)
    parser = ResponseParser("somewhere", BOUNDS)
    inner = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    outer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(inner)
    assert [answer.body for answer in map(parser.feed, [inner, outer, inner]) if answer] == [b"hello", inner]


def test_the_length_of_a_kept_head_may_differ() -> None:
    parser = ResponseParser("somewhere", BOUNDS)
    for size in range(1000):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX: y\r\n\r\n" % size
        assert parser.feed(head + b"b" * size) == Response(200, b"b" * size)
    assert parser._parsed == response_parser.KEEP_EVERY


@pytest.mark.proof
def test_mutated_answers_have_one_outcome_for_minutes(pytestconfig: pytest.Config) -> None:
    seed = time.time_ns() if draws_fresh_cases(pytestconfig) else 2
    seconds = 60 * max(1, pytestconfig.getoption("proof"))
    fuzz(seed, seconds, lambda random: check(mutated(random)))


@pytest.mark.proof
def test_a_parser_that_keeps_heads_parses_as_a_new_one_for_minutes(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_parser, "KEEP_EVERY", 1)
    seed = time.time_ns() if draws_fresh_cases(pytestconfig) else 2
    fuzz(seed, 60 * max(1, pytestconfig.getoption("proof")), check_again)
