"""Certificates that are rotated: new connections use the new ones, broken files change nothing."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from cryptography import x509
from structlog.testing import capture_logs

from cashier.wire.aiohttp_client import AiohttpClient, AiohttpSettings
from cashier.wire.file_watch import FileWatch
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.tls import client_tls
from cashier.wire.transport import NetworkTransport, Response
from tests.wire.client_side import PATIENT, answer, no_leaks, send
from tests.wire.scripted_upstream import Peer, Upstream, tcp_upstream

from .conftest import Authority


class Files(NamedTuple):
    certificate: Path
    key: Path
    authority: Authority

    def write(self, name: str) -> None:
        self.write_certificate(name).private_key_pem.write_to_path(str(self.key))

    def write_certificate(self, name: str) -> trustme.LeafCert:
        issued = self.authority.ca.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        return issued


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Files:
    files = Files(tmp_path / "tls.crt", tmp_path / "tls.key", authority)
    files.write("first.example")
    return files


def http1(url: str, files: Files, watch: FileWatch) -> NetworkTransport:
    settings = Http1Settings(
        ahead=0,
        ca_file=files.authority.ca_file,
        client_cert_file=str(files.certificate),
        client_key_file=str(files.key),
        **PATIENT,
    )
    return Http1Client([url], settings, files=watch)


def aiohttp(url: str, files: Files, watch: FileWatch) -> NetworkTransport:
    settings = AiohttpSettings(
        ca_file=files.authority.ca_file,
        client_cert_file=str(files.certificate),
        client_key_file=str(files.key),
        **PATIENT,
    )
    return AiohttpClient([url], settings, files=watch)


async def presented(transport: NetworkTransport, upstream: Upstream, peer: Peer | None = None) -> tuple[str, Peer]:
    """The name in the client certificate of the connection that the next call uses."""
    call = send(transport)
    if peer is None:
        peer = await upstream.peer()
    await peer.read_request()
    peer.write(answer(b"hello"))
    assert await call.outcome() == Response(200, b"hello")
    certificate = x509.load_der_x509_certificate(peer._writer.get_extra_info("ssl_object").getpeercert(True))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)[0], peer


@pytest.mark.parametrize("make", [http1, aiohttp])
async def test_new_connections_present_the_new_certificate(
    make: Callable[[str, Files, FileWatch], NetworkTransport], files: Files
) -> None:
    tls = files.authority.server_tls()
    tls.verify_mode = ssl.CERT_REQUIRED
    files.authority.ca.configure_trust(tls)
    async with no_leaks(), tcp_upstream(tls) as upstream:
        watch = FileWatch()
        transport = make(f"https://127.0.0.1:{upstream.port}", files, watch)
        name, peer = await presented(transport, upstream)
        assert name == "first.example"
        # Half of a rotation: the certificate does not belong to the key yet.
        files.write_certificate("half.example")
        with capture_logs() as logs:
            watch.check()
            watch.check()
        (log,) = logs
        assert log["log_level"] == "warning"
        assert str(files.certificate) in log["reason"]
        peer.close()
        name, peer = await presented(transport, upstream)
        assert name == "first.example"
        files.write("second.example")
        with capture_logs() as logs:
            watch.check()
        assert [log["event"] for log in logs] == ["changed files are in use"]
        peer.close()
        name, _ = await presented(transport, upstream)
        assert name == "second.example"
        await transport.close()


def test_an_encrypted_key_is_refused_and_asks_nobody(files: Files) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"p")))
    with pytest.raises(ValueError, match=str(files.key)):
        client_tls(None, str(files.certificate), str(files.key))
