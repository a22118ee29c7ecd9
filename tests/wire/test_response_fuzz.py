"""Differential fuzz of the response parser: one segment against bytewise, and against h11.

A fixed set of cases by default; `--proof=N` mutates for N minutes with a new seed.
"""

from __future__ import annotations

import re
import time
from random import Random

import h11
import pytest

from cashier.source_errors import Garbled
from cashier.wire.response_parser import ResponseBounds, ResponseParser
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
    data = interim + random.choice(STARTS) + b"\r\n" + fields + b"\r\n" + random.choice(BODIES)
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


def fuzz(seed: int, seconds: float) -> None:
    """Check `CASES` cases, and further ones until the time is over."""
    random, ends_s = Random(seed), time.monotonic() + seconds
    outcomes: set[str] = set()
    cases = 0
    while cases < CASES or time.monotonic() < ends_s:
        cases += 1
        try:
            outcomes.add(check(mutated(random)))
        except AssertionError as difference:
            raise AssertionError(f"seed {seed}, case {cases}: {difference}") from None
    assert outcomes == {"answered", "garbled", "waits"}


def test_mutated_answers_have_one_outcome_in_one_segment_bytewise_and_by_the_reference() -> None:
    fuzz(seed=1, seconds=0)


@pytest.mark.proof
def test_mutated_answers_have_one_outcome_for_minutes(pytestconfig: pytest.Config) -> None:
    seed = time.time_ns() if draws_fresh_cases(pytestconfig) else 2
    fuzz(seed=seed, seconds=60 * max(1, pytestconfig.getoption("proof")))
