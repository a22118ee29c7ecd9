"""Variants of framing: each is accepted rightly or garbled at once, in one segment and bytewise.

No variant may leave a call waiting: the deadline of a submit is eight seconds.
"""

from __future__ import annotations

import contextlib
import ssl

import pytest

from cashier.source_errors import Garbled
from cashier.wire.response_parser import ResponseBounds, ResponseParser
from cashier.wire.transport import Response
from tests.wire.client_side import OK, answer, send

from .conftest import BOUNDS, Wired

HELLO = Response(200, b"hello")
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
ENCODINGS = {
    value: HELLO if accepted else Garbled
    for accepted, values in {
        True: (b"chunked", b"Chunked", b"CHUNKED", b"chunked ", b" chunked", b"\tchunked", b"chunked   "),
        False: (
            *(
                b"chunked\t",
                b"chunked \t",
                b"CHUNKED \t ",
                b"chunked\x0b",
                b"chunked\x0c",
                b"chunked\xa0",
                b"chunked\x00",
            ),
            *(
                b"",
                b"identity",
                b"gzip",
                b"gzip, chunked",
                b"chunked, gzip",
                b"chunked, chunked",
                b"chunked,",
                b",chunked",
            ),
            *(
                b"chunked;q=1",
                b'"chunked"',
                b"x-chunked",
                b"chunkedx",
                b"chun\tked",
                b"chunked\r\n ",
                b"trailers, chunked",
            ),
            *(b"chunked\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: gzip"),
            *(b"gzip\r\nTransfer-Encoding: chunked", b"chunked\r\nContent-Length: 5", b"identity\r\nContent-Length: 5"),
        ),
    }.items()
    for value in values
}
LENGTHS = {
    **dict.fromkeys((b"5", b"05", b"5 ", b" 5", b"5\t", b"\t5", b"000000005"), HELLO),
    **dict.fromkeys(
        (b"", b"+5", b"-5", b"5, 5", b"5,5", b"5 5", b"0x5", b"5_0", b"5.0", b"1e1", b"5;", b'"5"', b"\xb25", b"5\x0b"),
        Garbled,
    ),
    **dict.fromkeys(
        (b"4097", b"18446744073709551621", b"9" * 40, b"5\r\nContent-Length: 5", b"5\r\nContent-Length: 6"), Garbled
    ),
}
SIZES = {
    **dict.fromkeys((b"5", b"05", b"0000000000000005", b"5;a", b"5;a=b", b'5;a="b c"'), HELLO),
    **dict.fromkeys(
        (
            b"",
            b"-5",
            b"+5",
            b"0x5",
            b"g",
            b"5_",
            b"5g",
            b" 5",
            b"\t5",
            b"5,5",
            b"f" * 17,
            b"5;a\x00",
            b"5\x00",
            b"5\r",
        ),
        Garbled,
    ),
}
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDS = {
    CHUNKED + b"5\nhello\r\n0\r\n\r\n": Garbled,
    CHUNKED + b"5\r\nhello\n0\r\n\r\n": Garbled,
    CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n": Garbled,
    CHUNKED + b"5\r\nhello\r\n0\n\n": Garbled,
    CHUNKED + b"5\r\nhello\r\n0\r\n\n": Garbled,
    CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n": HELLO,
    CHUNKED + b"5\r\nhello\r\n0\r\nno colon\r\n\r\n": Garbled,
    CHUNKED + b"5\r\nhello\r\n0\r\nX : y\r\n\r\n": Garbled,
    CHUNKED + b"5\r\nhello\r\n0\r\nX: a\x00b\r\n\r\n": Garbled,
    CHUNKED + b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n": Garbled,
    CHUNKED + b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n": HELLO,
    OK + b"no colon\r\nContent-Length: 5\r\n\r\nhello": Garbled,
    OK + b": y\r\nContent-Length: 5\r\n\r\nhello": Garbled,
    OK + b"X: a\rb\r\nContent-Length: 5\r\n\r\nhello": Garbled,
    OK + b"Content-Length: 5\n\nhello": Garbled,
    OK + b"Content-Length: 5\r\n\nhello": Garbled,
    OK + b"Content-Length\t: 5\r\n\r\nhello": Garbled,
    OK + b"Content-Length:5\r\n\r\nhello": HELLO,
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello": HELLO,
    b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello": HELLO,
    b"HTTP/1.1 204 No Content\r\n\r\n": Response(204, b""),
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n": Response(304, b""),
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"hello"): HELLO,
    b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n" + answer(b"hello"): HELLO,
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + answer(b"hello"): Garbled,
}
VARIANTS = {
    **{OK + b"Transfer-Encoding: " + value + b"\r\n\r\n" + CHUNKS: outcome for value, outcome in ENCODINGS.items()},
    **{OK + b"Content-Length: " + value + b"\r\n\r\nhello": outcome for value, outcome in LENGTHS.items()},
    **{CHUNKED + value + b"\r\nhello\r\n0\r\n\r\n": outcome for value, outcome in SIZES.items()},
    **ENDS,
}
# A body instead of chunks: no encoding may be read as a body that ends with the connection.
UNCHUNKED = [OK + b"Transfer-Encoding: " + value + b"\r\n\r\nhello, world" for value in ENCODINGS]


def parsed(pieces: list[bytes]) -> Response | type[Garbled] | None:
    """The outcome; None: the call waits for more."""
    parser = ResponseParser("somewhere", ResponseBounds(**BOUNDS))
    try:
        outcomes = [outcome for piece in pieces if (outcome := parser.feed(piece)) is not None]
    except Garbled:
        return Garbled
    return outcomes[0] if outcomes else None


def bytewise(data: bytes) -> list[bytes]:
    return [data[position : position + 1] for position in range(len(data))]


@pytest.mark.parametrize("data", VARIANTS, ids=repr)
def test_a_variant_of_framing_is_accepted_rightly_or_garbled_however_it_is_split(data: bytes) -> None:
    assert parsed([data]) == VARIANTS[data]
    assert parsed(bytewise(data)) == VARIANTS[data]


@pytest.mark.parametrize("data", UNCHUNKED, ids=repr)
def test_no_transfer_encoding_makes_a_body_that_ends_with_the_connection(data: bytes) -> None:
    assert parsed([data]) is Garbled
    assert parsed(bytewise(data)) is Garbled


@pytest.mark.parametrize("encoding", [b"chunked\t", b"chunked\x0b", b"gzip"], ids=repr)
@pytest.mark.parametrize("body", [CHUNKS, b""], ids=["chunks", "nothing"])
@pytest.mark.parametrize("split", [False, True], ids=["at once", "bytewise"])
async def test_an_unusual_transfer_encoding_ends_the_call_at_once(
    wired: Wired, encoding: bytes, body: bytes, split: bool
) -> None:
    call = send(wired.transport, "/pay", method="POST", safe=False, body=b"{}")
    peer = await wired.upstream.peer()
    await peer.read_request()
    data = OK + b"Transfer-Encoding: " + encoding + b"\r\n\r\n" + body
    with contextlib.suppress(ConnectionError, ssl.SSLError):  # the client may close before the end
        await (peer.write_slowly(data) if split else peer.flood(data, times=1))
    assert isinstance(await call.outcome(), Garbled)
