"""Verified TLS: whom both transports refuse to talk to, and that they can prove who they are."""

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

from .asking import answer, ask, nothing_left
from .conftest import Authority
from .hostile import Upstream, tcp_upstream

# url, CA file, client certificate and key in one file
Make = Callable[[str, str | None, str | None], Transport]


def http1(url: str, ca_file: str | None, cert_file: str | None) -> Transport:
    return Http1Client([url], Http1Settings(ahead=1, ca_file=ca_file, client_cert_file=cert_file))


def aiohttp(url: str, ca_file: str | None, cert_file: str | None) -> Transport:
    return AiohttpClient([url], AiohttpSettings(ca_file=ca_file, client_cert_file=cert_file))


@pytest.fixture(params=[http1, aiohttp], ids=["http1", "aiohttp"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


@pytest.fixture
async def demanding(authority: Authority) -> AsyncIterator[Upstream]:
    """An upstream that wants to see a certificate of our authority."""
    tls = authority.server_tls()
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(tls)
    async with nothing_left(), tcp_upstream(tls) as upstream:
        yield upstream


@pytest.fixture
def own_certificate(authority: Authority, tmp_path: Path) -> str:
    file = tmp_path / "client.pem"
    authority.ca.issue_cert("cashier.example").private_key_and_cert_chain_pem.write_to_path(str(file))
    return str(file)


async def refused(wire: Transport) -> str:
    await wire.open()
    outcome = await ask(wire).outcome()
    await wire.close()
    assert isinstance(outcome, Unreachable)
    return outcome.detail


async def test_an_unknown_authority_is_not_believed(make: Make, authority: Authority) -> None:
    async with nothing_left(), tcp_upstream(authority.server_tls()) as upstream:
        detail = await refused(make(f"https://127.0.0.1:{upstream.port}", None, None))
        assert f"https://127.0.0.1:{upstream.port}" in detail
        assert "certificate" in detail.lower()


async def test_a_certificate_for_another_host_is_not_believed(make: Make, authority: Authority) -> None:
    elsewhere = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("elsewhere.example").configure_cert(elsewhere)
    async with nothing_left(), tcp_upstream(elsewhere) as upstream:
        detail = await refused(make(f"https://127.0.0.1:{upstream.port}", authority.ca_file, None))
        assert "certificate" in detail.lower()


async def test_an_upstream_without_tls_is_unreachable_over_https(make: Make, authority: Authority) -> None:
    async with nothing_left(), tcp_upstream() as upstream:
        wire = make(f"https://127.0.0.1:{upstream.port}", authority.ca_file, None)
        asked = ask(wire)
        peer = await upstream.peer()
        peer.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        assert isinstance(await asked.outcome(), Unreachable)
        await wire.close()


async def test_an_upstream_that_wants_a_certificate_gets_it(
    make: Make, demanding: Upstream, authority: Authority, own_certificate: str
) -> None:
    wire = make(f"https://127.0.0.1:{demanding.port}", authority.ca_file, own_certificate)
    asked = ask(wire)
    peer = await demanding.peer()
    await peer.question()
    peer.say(answer(b"hello"))
    assert await asked.outcome() == Response(200, b"hello")
    await wire.close()


async def test_without_the_certificate_it_wants_an_upstream_is_unreachable(
    make: Make, demanding: Upstream, authority: Authority
) -> None:
    await refused(make(f"https://127.0.0.1:{demanding.port}", authority.ca_file, None))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"ca_file": "/no/such/ca.pem"}, "CA file '/no/such/ca.pem'"),
        ({"client_cert_file": "/no/such/cert.pem"}, "client certificate '/no/such/cert.pem'"),
        ({"client_key_file": "/no/such/key.pem"}, "client key '/no/such/key.pem' without a client certificate"),
    ],
    ids=["authority", "certificate", "key alone"],
)
def test_a_file_that_cannot_be_used_is_named_at_once(settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Http1Client(["https://127.0.0.1"], Http1Settings(**settings))  # type: ignore[arg-type]  # one text or another


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate")
    with pytest.raises(ValueError, match=str(file)):
        Http1Client(["https://127.0.0.1"], Http1Settings(ca_file=str(file)))


async def test_a_certificate_of_another_authority_does_not_help(
    make: Make, demanding: Upstream, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "stranger.pem"
    trustme.CA().issue_cert("cashier.example").private_key_and_cert_chain_pem.write_to_path(str(file))
    await refused(make(f"https://127.0.0.1:{demanding.port}", authority.ca_file, str(file)))
