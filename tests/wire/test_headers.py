"""Headers of a request: sent unchanged by every transport, and refused if they inject others."""

from __future__ import annotations

import pytest

from cashier.wire.aiohttp_client import AiohttpClient
from cashier.wire.http1 import Http1Client
from cashier.wire.response_headers import ResponseHeaders
from cashier.wire.transport import Request, Response
from tests.wire.client_side import CALL_HEADERS, RecordedCall, answer, no_leaks

from .conftest import Wired, exchange
from .scripted_upstream import Peer, tcp_upstream


async def test_a_header_of_the_request_is_sent_once(wired: Wired) -> None:
    call = RecordedCall(
        wired.transport,
        Request("/payments", "POST", b"{}", headers=(("Idempotency-Key", "pay_1"), ("X-Other", "a,b;c"))),
    )
    peer = await wired.upstream.peer()
    request = await peer.read_request()
    peer.write(answer(b"hello"))
    await call.outcome()
    assert request.headers["idempotency-key"] == "pay_1"
    assert request.headers["x-other"] == "a,b;c"
    assert request.body == b"{}"


async def test_a_request_may_have_values_with_spaces_and_a_media_type_of_its_own(wired: Wired) -> None:
    headers = (("Authorization", "Bearer x y"), ("content-type", "text/xml; charset=utf-8"), ("ACCEPT", "text/xml"))
    call = RecordedCall(wired.transport, Request("/soap", "POST", b"<a/>", headers=headers))
    peer = await wired.upstream.peer()
    request = await peer.read_request()
    peer.write(answer(b"hello"))
    await call.outcome()
    assert request.headers["authorization"] == "Bearer x y"
    assert request.headers["content-type"] == "text/xml; charset=utf-8"
    assert request.headers["accept"] == "text/xml"
    assert request.body == b"<a/>"


@pytest.mark.parametrize(
    "headers",
    [
        (("Idempotency-Key", "a\r\nX-Injected: 1"),),
        (("Idempotency-Key", "a\nb"),),
        (("Idempotency-Key", ""),),
        (("Idempotency-Key", "ü"),),
        (("Idempotency-Key", " a"),),
        (("Idempotency-Key", "a\t"),),
        (("Idempotency-Key", "a\0b"),),
        (("Idempotency-Key", "a\x7fb"),),
        (("Accept-Encoding", "gzip"),),
        (("Proxy-Authorization", "Basic x"),),
        (("X-Injected: 1\r\nX", "a"),),
        (("X Y", "a"),),
        (("", "a"),),
        (("X", "a"), ("x", "b")),
        (("Host", "elsewhere"),),
        (("content-length", "0"),),
        (("Transfer-Encoding", "chunked"),),
        (("X-Request-Id", "r-2"),),
        (("Connection", "close"),),
    ],
    ids=repr,
)
async def test_a_header_that_injects_or_overrides_another_is_refused(
    wired: Wired, headers: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(ValueError, match="header") as refused:
        wired.transport.send(Request("/a", headers=headers), CALL_HEADERS, 100, lambda _outcome: None)
    assert "Injected: 1" not in str(refused.value) or headers[0][0].startswith("X-Injected")
    await exchange(wired)
    assert wired.upstream.untaken == 0


@pytest.mark.parametrize("client", [Http1Client, AiohttpClient])
@pytest.mark.parametrize("keep", [True, False])
async def test_a_response_has_its_headers_only_where_they_are_kept(
    client: type[Http1Client] | type[AiohttpClient], keep: bool
) -> None:
    async with no_leaks(), tcp_upstream() as upstream:
        transport = client([f"http://127.0.0.1:{upstream.port}"], keep_headers=keep)
        peer: Peer | None = None
        for number in (b"1", b"2"):
            call = RecordedCall(transport, Request("/"))
            peer = peer or await upstream.peer()
            await peer.read_request()
            peer.write(
                b"HTTP/1.1 103 Early\r\nX-Early: 1\r\n\r\nHTTP/1.1 200 OK\r\nX-Number: %s\r\nLink: <a>\r\nlink: <b>\r\n"
                b"Content-Length: 2\r\n\r\n{}" % number
            )
            response = await call.outcome()
            assert isinstance(response, Response)
            expected = {"x-number": number.decode(), "link": "<a>, <b>", "content-length": "2"}
            assert dict(response.headers) == (expected if keep else {})
            assert response.headers.get("X-NUMBER") == (number.decode() if keep else None)
            assert response.json() == {}
        await transport.close()


def test_headers_do_not_show_their_values() -> None:
    assert "secret" not in repr(ResponseHeaders([("Set-Cookie", "secret")]))
