"""Each failure of a real upstream has a code of its own, with both clients."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cashier.source_errors import FailureReason, SourceError
from cashier.sources.member import MEMBER
from cashier.sources.source import parse_response
from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.awaited_call import send_and_wait
from cashier.wire.call_completion import loss_reason
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.resolver import Lookup, Resolution, Resolver
from cashier.wire.transport import CallHeaders, Transport
from tests.wire.client_side import answer
from tests.wire.conftest import Authority
from tests.wire.scripted_upstream import Peer, silent_listener, tcp_upstream, unused_port

INPUTS = {"user_id": "u_1"}
Act = Callable[[Peer], Coroutine[Any, Any, None]]


async def resolve_nothing(host: str) -> Resolution:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture(params=["http1", "aiohttp"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def connected(
    client: str, url: str, ca_file: str | None = None, *, timeout_ms: int = 30_000, look_up: Lookup | None = None
) -> AsyncIterator[Transport]:
    resolver = Resolver(look_up)
    transport: Transport = (
        Http1Client([url], Http1Settings(ahead=0, ca_file=ca_file, connect_timeout_ms=timeout_ms), resolver)
        if client == "http1"
        else AiohttpClient([url], AiohttpSettings(ca_file=ca_file, connect_timeout_ms=timeout_ms), resolver)
    )
    try:
        yield transport
    finally:
        await transport.close()
        resolver.close()


async def failure(transport: Transport, budget_ms: int = 5_000) -> SourceError:
    """What a source makes of one call."""
    response = await send_and_wait(transport, MEMBER.request(INPUTS), CallHeaders("r-1"), budget_ms)
    outcome = parse_response(MEMBER, response, INPUTS)
    assert isinstance(outcome, SourceError), outcome
    return outcome


async def failure_after(act: Act, client: str, ca_file: str | None = None, budget_ms: int = 5_000) -> SourceError:
    """The failure of a call to an upstream that does `act` with its connection."""
    async with tcp_upstream() as upstream, asyncio.TaskGroup() as tasks:

        async def serve() -> None:
            await act(await upstream.peer())

        scheme = "http" if ca_file is None else "https"
        async with connected(client, f"{scheme}://127.0.0.1:{upstream.port}", ca_file) as transport:
            serving = tasks.create_task(serve())
            found = await failure(transport, budget_ms)
            serving.cancel()
    return found


async def test_a_name_without_addresses_is_a_dns_failure(client: str) -> None:
    async with connected(client, "http://nowhere.example:80", look_up=resolve_nothing) as transport:
        assert (await failure(transport)).reason is FailureReason.DNS


async def test_a_port_without_a_listener_is_refused(client: str) -> None:
    async with connected(client, f"http://127.0.0.1:{unused_port()}") as transport:
        assert (await failure(transport)).reason is FailureReason.REFUSED


async def test_a_host_that_drops_packets_is_a_connect_timeout(client: str) -> None:
    with silent_listener() as port:
        async with connected(client, f"http://127.0.0.1:{port}", timeout_ms=50) as transport:
            assert (await failure(transport)).reason is FailureReason.CONNECT_TIMEOUT


async def test_a_missing_socket_file_is_unreachable(client: str) -> None:
    async with connected(client, "unix:/nonexistent/socket") as transport:
        assert (await failure(transport)).reason is FailureReason.UNREACHABLE


async def test_an_untrusted_certificate_is_a_tls_failure(client: str, server_tls: ssl.SSLContext) -> None:
    async with (
        tcp_upstream(server_tls) as upstream,
        connected(client, f"https://127.0.0.1:{upstream.port}") as transport,
    ):
        assert (await failure(transport)).reason is FailureReason.TLS


async def test_a_server_without_tls_is_a_tls_failure(client: str, authority: Authority) -> None:
    async def answer_in_plain_text(peer: Peer) -> None:
        peer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    assert (await failure_after(answer_in_plain_text, client, authority.ca_file)).reason is FailureReason.TLS


async def test_a_handshake_that_is_reset_is_a_tls_failure(client: str, authority: Authority) -> None:
    async def reset(peer: Peer) -> None:
        peer.reset()

    assert (await failure_after(reset, client, authority.ca_file)).reason is FailureReason.TLS


async def test_a_refused_client_certificate_is_a_tls_failure(client: str, authority: Authority) -> None:
    strict = authority.server_tls()
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.maximum_version = ssl.TLSVersion.TLSv1_2
    async with (
        tcp_upstream(strict) as upstream,
        connected(client, f"https://127.0.0.1:{upstream.port}", authority.ca_file) as transport,
    ):
        assert (await failure(transport)).reason is FailureReason.TLS


def test_an_alert_on_an_open_connection_is_a_tls_failure() -> None:
    """In TLS 1.3 a server refuses a certificate after the handshake; the alert may come late."""
    assert loss_reason(ssl.SSLError(1, "tlsv13 alert certificate required")) is FailureReason.TLS
    assert loss_reason(ConnectionResetError()) is loss_reason(None) is FailureReason.RESET


async def test_a_silent_server_is_a_timeout(client: str) -> None:
    async def read_only(peer: Peer) -> None:
        await peer.read_request()

    assert (await failure_after(read_only, client, budget_ms=50)).reason is FailureReason.TIMEOUT


async def test_a_connection_reset_instead_of_an_answer_is_a_reset(client: str) -> None:
    async def reset(peer: Peer) -> None:
        await peer.read_request()
        peer.reset()

    assert (await failure_after(reset, client)).reason is FailureReason.RESET


async def test_a_connection_closed_within_an_answer_is_a_reset(client: str) -> None:
    async def close_early(peer: Peer) -> None:
        await peer.read_request()
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        peer.close()

    assert (await failure_after(close_early, client)).reason is FailureReason.RESET


def status(line: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (line, len(body), body)


MEMBER_OF_ANOTHER = b'{"user_id": "u_2", "status": "ACTIVE", "country": "CN", "kyc_level": 1, "usage": []}'


@pytest.mark.parametrize(
    ("received", "reason", "names"),
    [
        (status(b"404 Not Found", b"<html>nginx</html>"), FailureReason.WRONG_PATH, "404"),
        (status(b"404 Not Found", b'{"code": "ROUTE_UNMATCHED"}'), FailureReason.WRONG_PATH, "404"),
        (status(b"401 Unauthorized"), FailureReason.UNAUTHORIZED, "refuses our credential"),
        (status(b"403 Forbidden"), FailureReason.UNAUTHORIZED, "refuses our credential"),
        (status(b"410 Gone"), FailureReason.STATUS_4XX, "410"),
        (status(b"302 Found"), FailureReason.STATUS_3XX, "302"),
        (status(b"201 Created"), FailureReason.STATUS_2XX, "201"),
        (status(b"500 Internal Server Error"), FailureReason.STATUS_5XX, "500"),
        (status(b"503 Service Unavailable"), FailureReason.OVERLOADED, "503"),
        (status(b"429 Too Many Requests"), FailureReason.OVERLOADED, "429"),
        (answer(b"<html>"), FailureReason.NOT_JSON, "shape"),
        (answer(b'{"user_id": "u_1", "status": '), FailureReason.NOT_JSON, "shape"),
        (answer(b'{"user_id": "u_1"}'), FailureReason.FIELD, "`status`"),
        (answer(b'{"user_id": 1, "status": "ACTIVE"}'), FailureReason.FIELD, "$.user_id"),
        (answer(MEMBER_OF_ANOTHER), FailureReason.WRONG_IDENTITY, "another user"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", FailureReason.PROTOCOL, ""),
    ],
)
async def test_an_answer_that_cannot_be_used_says_why(
    client: str, received: bytes, reason: FailureReason, names: str
) -> None:
    async def reply(peer: Peer) -> None:
        await peer.read_request()
        peer.write(received)

    found = await failure_after(reply, client)
    assert found.reason is reason
    assert names in found.detail
