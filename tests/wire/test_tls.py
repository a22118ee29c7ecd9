"""Verified TLS of both clients: refused servers, and client certificates."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from cashier.source_errors import Unreachable
from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import Response, Transport
from tests.wire.client_side import PATIENT, answer, no_leaks, send
from tests.wire.scripted_upstream import Upstream, tcp_upstream

from .conftest import Authority

# URL, CA file, client certificate and key in one file
MakeTransport = Callable[[str, str | None, str | None], Transport]


def http1(url: str, ca_file: str | None, cert_file: str | None) -> Transport:
    return Http1Client([url], Http1Settings(ahead=1, ca_file=ca_file, client_cert_file=cert_file, **PATIENT))


def aiohttp(url: str, ca_file: str | None, cert_file: str | None) -> Transport:
    return AiohttpClient([url], AiohttpSettings(ca_file=ca_file, client_cert_file=cert_file, **PATIENT))


@pytest.fixture(params=[http1, aiohttp], ids=["http1", "aiohttp"])
def make(request: pytest.FixtureRequest) -> MakeTransport:
    chosen: MakeTransport = request.param
    return chosen


@pytest.fixture
async def demanding(authority: Authority) -> AsyncIterator[Upstream]:
    """An upstream that requires a client certificate of the test authority."""
    tls = authority.server_tls()
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(tls)
    async with no_leaks(), tcp_upstream(tls) as upstream:
        yield upstream


@pytest.fixture
def own_certificate(authority: Authority, tmp_path: Path) -> str:
    file = tmp_path / "client.pem"
    authority.ca.issue_cert("cashier.example").private_key_and_cert_chain_pem.write_to_path(str(file))
    return str(file)


async def refused(transport: Transport) -> str:
    await transport.open()
    outcome = await send(transport).outcome()
    await transport.close()
    assert isinstance(outcome, Unreachable)
    return outcome.detail


async def test_an_unknown_authority_is_not_trusted(make: MakeTransport, authority: Authority) -> None:
    async with no_leaks(), tcp_upstream(authority.server_tls()) as upstream:
        detail = await refused(make(f"https://127.0.0.1:{upstream.port}", None, None))
        assert f"https://127.0.0.1:{upstream.port}" in detail
        assert "certificate" in detail.lower()


async def test_a_certificate_for_another_host_is_not_trusted(make: MakeTransport, authority: Authority) -> None:
    elsewhere = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("elsewhere.example").configure_cert(elsewhere)
    async with no_leaks(), tcp_upstream(elsewhere) as upstream:
        detail = await refused(make(f"https://127.0.0.1:{upstream.port}", authority.ca_file, None))
        assert "certificate" in detail.lower()


async def test_an_upstream_without_tls_is_unreachable_over_https(make: MakeTransport, authority: Authority) -> None:
    async with no_leaks(), tcp_upstream() as upstream:
        transport = make(f"https://127.0.0.1:{upstream.port}", authority.ca_file, None)
        call = send(transport)
        peer = await upstream.peer()
        peer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        assert isinstance(await call.outcome(), Unreachable)
        await transport.close()


async def test_an_upstream_that_requires_a_client_certificate_gets_it(
    make: MakeTransport, demanding: Upstream, authority: Authority, own_certificate: str
) -> None:
    transport = make(f"https://127.0.0.1:{demanding.port}", authority.ca_file, own_certificate)
    call = send(transport)
    peer = await demanding.peer()
    await peer.read_request()
    peer.write(answer(b"hello"))
    assert await call.outcome() == Response(200, b"hello")
    await transport.close()


async def test_without_the_required_client_certificate_the_upstream_is_unreachable(
    make: MakeTransport, demanding: Upstream, authority: Authority
) -> None:
    await refused(make(f"https://127.0.0.1:{demanding.port}", authority.ca_file, None))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"ca_file": "/no/such/ca.pem"}, "ca_file '/no/such/ca.pem'"),
        ({"client_cert_file": "/no/such/cert.pem"}, "client_cert_file '/no/such/cert.pem'"),
        ({"client_key_file": "/no/such/key.pem"}, "client_key_file '/no/such/key.pem' without client_cert_file"),
    ],
    ids=["authority", "certificate", "key alone"],
)
def test_an_unusable_file_is_named_at_construction(settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Http1Client(["https://127.0.0.1"], Http1Settings(**settings))  # type: ignore[arg-type]  # one text or another


def test_a_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate")
    with pytest.raises(ValueError, match=str(file)):
        Http1Client(["https://127.0.0.1"], Http1Settings(ca_file=str(file)))


async def test_a_client_certificate_of_another_authority_is_refused(
    make: MakeTransport, demanding: Upstream, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "stranger.pem"
    trustme.CA().issue_cert("cashier.example").private_key_and_cert_chain_pem.write_to_path(str(file))
    await refused(make(f"https://127.0.0.1:{demanding.port}", authority.ca_file, str(file)))
