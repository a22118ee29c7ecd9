"""Requests by RFC 9112: what is accepted and refused, and that llhttp reads them the same way."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.web.problem import ProblemCode
from cashier.web.request_parser import CHUNKED, HEAD_LIMIT_BYTES, ChunkedBody, ProtocolError, RequestHead, parse_head


def parse(data: bytes) -> RequestHead:
    parsed = parse_head(data, 0, 0)
    assert parsed is not None
    request, end = parsed
    assert end == len(data)
    return request


def request(*lines: bytes, line: bytes = b"POST /x HTTP/1.1", host: bytes = b"Host: shop\r\n") -> bytes:
    return line + b"\r\n" + host + b"".join(one + b"\r\n" for one in lines) + b"\r\n"


REFUSED = {
    "space before the colon": request(b"X-A : b"),
    "tab before the colon": request(b"X-A\t: b"),
    "folded line": request(b"X-A: b", b" c"),
    "folded with a tab": request(b"X-A: b", b"\tc"),
    "first line folded": request(b" X-A: b", host=b""),
    "bare CR in a value": request(b"X-A: b\rc"),
    "bare LF": request(b"X-A: b\nX-B: c"),
    "NUL": request(b"X-A: \x00"),
    "DEL": request(b"X-A: \x7f"),
    "no colon": request(b"X-A"),
    "no name": request(b": b"),
    "name with a space": request(b"X A: b"),
    "name with a high byte": request(b"X\xe9: b"),
    "no Host": request(host=b""),
    "two Hosts": request(b"Host: shop"),
    "two Hosts in HTTP/1.0": request(b"Host: shop", line=b"GET / HTTP/1.0"),
    "Host with a path": request(host=b"Host: shop/x\r\n"),
    "Host with a user": request(host=b"Host: me@shop\r\n"),
    "Host with a space": request(host=b"Host: shop x\r\n"),
    "Host list": request(host=b"Host: a,b c\r\n"),
    "bad port": request(host=b"Host: shop:8x\r\n"),
    "two lengths": request(b"Content-Length: 5", b"Content-Length: 6"),
    "one length twice": request(b"Content-Length: 5", b"content-length: 5"),
    "list of lengths": request(b"Content-Length: 5, 5"),
    "signed length": request(b"Content-Length: +5"),
    "negative length": request(b"Content-Length: -5"),
    "hexadecimal length": request(b"Content-Length: 0x5"),
    "empty length": request(b"Content-Length: "),
    "length with a space": request(b"Content-Length: 1 2"),
    "length and chunks": request(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "unknown coding": request(b"Transfer-Encoding: gzip"),
    "chunked not last": request(b"Transfer-Encoding: chunked, gzip"),
    "chunked twice": request(b"Transfer-Encoding: chunked, chunked"),
    "chunked in two lines": request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "another coding first": request(b"Transfer-Encoding: gzip, chunked"),
    "identity": request(b"Transfer-Encoding: identity"),
    "empty coding": request(b"Transfer-Encoding:"),
    "vertical tab around chunked": request(b"Transfer-Encoding: \x0bchunked"),
    "chunks in HTTP/1.0": request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"),
    "no version": request(line=b"GET /"),
    "HTTP/0.9": request(line=b"GET / HTTP/0.9"),
    "HTTP/2.0": request(line=b"GET / HTTP/2.0"),
    "two-digit version": request(line=b"GET / HTTP/1.10"),
    "lower-case version": request(line=b"GET / http/1.1"),
    "two spaces": request(line=b"GET  / HTTP/1.1"),
    "tab": request(line=b"GET\t/ HTTP/1.1"),
    "leading space": request(line=b" GET / HTTP/1.1"),
    "trailing space": request(line=b"GET / HTTP/1.1 "),
    "space in the target": request(line=b"GET /a b HTTP/1.1"),
    "high byte in the target": request(line=b"GET /\xe9 HTTP/1.1"),
    "fragment": request(line=b"GET /a#b HTTP/1.1"),
    "relative target": request(line=b"GET a HTTP/1.1"),
    "CONNECT": request(line=b"CONNECT bank:443 HTTP/1.1"),
    "CONNECT with a scheme": request(line=b"CONNECT http://bank/ HTTP/1.1"),
    "another scheme": request(line=b"GET ftp://shop/ HTTP/1.1"),
    "asterisk": request(line=b"GET * HTTP/1.1"),
    "user name": request(line=b"GET http://user@shop/ HTTP/1.1"),
    "password": request(line=b"GET http://user:pass@shop/ HTTP/1.1"),
    "two callers": request(b"Authorization: Bearer a", b"X-A: b", b"authorization: Bearer b"),
    "two pages": request(b"Origin: https://shop.example", b"Origin: https://evil.example"),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_two_recipients_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse(data)
    assert refused.value.code is ProblemCode.MALFORMED


def test_the_lines_of_a_tracestate_are_one_list_and_of_another_header_the_last_counts() -> None:
    head = parse(request(b"tracestate: a=1", b"X-A: 1", b"TraceState: b=2, c=3", b"X-A: 2"))
    assert (head.fields[b"tracestate"], head.fields[b"x-a"]) == (b"a=1,b=2, c=3", b"2")
    others = [(b"host", b"shop"), (b"x-a", b"1"), (b"x-a", b"2")]
    assert head.headers == [*others, (b"tracestate", b"a=1,b=2, c=3")]


@pytest.mark.parametrize("space", [b"", b" ", b"\t", b" \t \t"])
def test_spaces_and_tabs_around_a_value_are_no_part_of_it(space: bytes) -> None:
    parsed = parse(request(b"X-A:" + space + b"b \t c" + space, b"Content-Length:" + space + b"7" + space))
    assert (parsed.fields[b"x-a"], parsed.length) == (b"b \t c", 7)


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"GET /a?b=c HTTP/1.1", b"/a?b=c"),
        (b"GET http://shop/a?b HTTP/1.1", b"/a?b"),
        (b"GET HTTPS://shop:8443 HTTP/1.1", b"/"),
        (b"GET http://shop?b HTTP/1.1", b"/?b"),
        (b"GET http://shop/a@b HTTP/1.1", b"/a@b"),
        (b"GET http://shop?a@b HTTP/1.1", b"/?a@b"),
        (b"OPTIONS * HTTP/1.1", b"*"),
        (b"BREW //pot HTTP/1.7", b"//pot"),
    ],
)
def test_targets_come_in_origin_form(line: bytes, target: bytes) -> None:
    assert parse(request(line=line)).target == target


@pytest.mark.parametrize("host", [b"", b"shop", b"shop:", b"shop:80", b"a_b.c-d", b"[::1]:80", b"127.0.0.1", b"%41"])
def test_a_host_is_a_name_or_address_with_an_optional_port(host: bytes) -> None:
    assert parse(request(host=b"Host: %b\r\n" % host)).fields[b"host"] == host


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        ((), True),
        ((b"Connection: keep-alive",), True),
        ((b"Connection: closed",), True),
        ((b"Connection: CLOSE",), False),
        ((b"Connection: close, Upgrade", b"Upgrade: h2c"), False),
        ((b"Connection: Upgrade ,\tclose",), False),
        ((b"Connection: close", b"Connection: keep-alive"), False),
    ],
)
def test_the_option_close_ends_the_connection(lines: tuple[bytes, ...], keep_alive: bool) -> None:
    assert parse(request(*lines)).keep_alive is keep_alive


def test_http_1_0_neither_persists_nor_expects_100_continue() -> None:
    lines = (b"Connection: keep-alive", b"Expect: 100-continue", b"Content-Length: 5")
    parsed = parse(request(*lines, line=b"POST / HTTP/1.0", host=b""))
    assert (parsed.keep_alive, parsed.expects_continue) == (False, False)
    assert parse(request(*lines)).expects_continue


@pytest.mark.parametrize(("digits", "length"), [(b"0" * 5000 + b"12", 12), (b"9" * 5000, 10**18), (b"0", 0)])
def test_a_length_of_any_number_of_digits_is_read(digits: bytes, length: int) -> None:
    assert parse(request(b"Content-Length: " + digits)).length == length


def test_chunked_in_any_case_is_a_body_of_chunks() -> None:
    assert parse(request(b"Transfer-Encoding: \tChunked ")).length == CHUNKED


@pytest.mark.parametrize("excess", [0, 1])
def test_the_limit_of_the_head_is_exact(excess: int) -> None:
    empty = len(request(b"X: "))
    data = request(b"X: " + b"y" * (HEAD_LIMIT_BYTES - empty + excess))
    if not excess:
        assert parse(data).fields[b"x"].startswith(b"y")
        return
    with pytest.raises(ProtocolError) as refused:
        parse(data)
    assert refused.value.code is ProblemCode.HEADERS_TOO_LARGE


class Decoded:
    def __init__(self, pieces: list[bytes], budget: int = HEAD_LIMIT_BYTES) -> None:
        body = ChunkedBody(budget)
        buffer, self.data = b"", b""
        for piece in pieces:
            buffer += piece
            data, used = body.feed(buffer, 0)
            self.data, buffer = self.data + data, buffer[used:]
            if body.complete or body.fault is not None:
                break
        self.rest, self.complete, self.fault = buffer, body.complete, body.fault and body.fault.code


@pytest.mark.parametrize(
    ("data", "body", "rest"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET"),
        (b"A;name=value\r\n0123456789\r\n000 ; x\r\nX-A: b\r\nX-B:\r\n\r\n", b"0123456789", b""),
        (b"1\r\n\r\r\n2\r\n\r\n\r\n0\r\n\r\n", b"\r\r\n", b""),
    ],
)
def test_chunks_are_joined_and_trailers_dropped(data: bytes, body: bytes, rest: bytes) -> None:
    whole = Decoded([data])
    single = Decoded([bytes([byte]) for byte in data])
    assert (whole.data, whole.complete, whole.rest) == (body, True, rest)
    assert (single.data, single.complete) == (body, True)


@pytest.mark.parametrize(
    "data",
    [
        b"ZZ\r\n", b"\r\n", b"-1\r\n", b"+5\r\n", b"0x5\r\n", b" 5\r\n", b"5 \r\n", b"5\n", b"5\r\r\n", b"5,6\r\n",
        b"5;\x00\r\n", b"11111111111111111\r\n", b"5\r\nhello!\r\n", b"5\r\nhello\n", b"0\r\nX-A : b\r\n",
        b"0\r\n b\r\n",
        b"0\r\nno colon\r\n", b"0\r\nX: \x00\r\n", b"0\r\nX: a\n",
    ],
)  # fmt: skip
def test_a_broken_chunk_or_trailer_is_refused(data: bytes) -> None:
    for pieces in ([data], [bytes([byte]) for byte in data]):
        assert Decoded(pieces).fault is ProblemCode.MALFORMED


@pytest.mark.parametrize("flood", [b"X-A: y\r\n" * 20, b"X" * 200, b"\r" * 200])
def test_framing_and_trailers_count_until_the_message_ends(flood: bytes) -> None:
    for prefix in (b"0\r\n", b"1;" + b"e" * 50 + b"\r\nx\r\n0\r\n"):
        whole = Decoded([prefix + flood], 100)
        single = Decoded([bytes([byte]) for byte in prefix + flood], 100)
        assert whole.fault is single.fault is ProblemCode.HEADERS_TOO_LARGE


class LlhttpRequest:
    """What llhttp makes of a request."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.url = b""
        self.complete = self._in_trailers = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_trailers:
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self._in_trailers = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


_LINES = st.lists(
    st.sampled_from(
        (
            b"Host: a", b"Content-Length: 5", b"content-length:\t5 ", b"Transfer-Encoding: chunked", b"X-A: b", b"X-A:",
            b"x-a : b", b" folded", b"X: a\rb", b"X: \xff", b"Transfer-Encoding: gzip, chunked", b"Connection: close",
            b"Content-Length: 5, 5", b"Expect: 100-continue", b"X\x00: a", b"Transfer-Encoding:\x0bchunked",
        )
    ),
    max_size=5,
)  # fmt: skip
_BODIES = st.sampled_from(
    (
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;x\r\nhello\r\n0\r\nX-T: t\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"05\r\nhello\r\n00\r\n\r\n",
    )
)


@given(_LINES, _BODIES, st.sampled_from((b"POST", b"GET", b"PUT")))
def test_llhttp_reads_every_accepted_request_the_same_way(lines: list[bytes], body: bytes, method: bytes) -> None:
    """Otherwise a gateway in front could see other requests than this server (smuggling)."""
    head = request(*lines, line=method + b" /x HTTP/1.1", host=b"")
    try:
        parsed = parse(head)
    except ProtocolError:
        return
    if parsed.length == CHUNKED:
        chunks = Decoded([body])
        if not chunks.complete or chunks.rest:
            return
        expected = chunks.data
    else:
        body = expected = body[: parsed.length]
    oracle = LlhttpRequest(head + body)
    assert oracle.complete
    assert (oracle.url, oracle.headers, oracle.body) == (parsed.target, parsed.headers, expected)
