"""Memory of a real server under clients that send or pipeline without end and never read."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

import pytest

from tests.web.server_process import GET, RawClient, ServerProcess, consult_request, running_server

pytestmark = pytest.mark.processes

MOST_GROWTH_MIB = 30
CHUNKED = b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"


def resident_mib(server: ServerProcess, field: str = "VmRSS") -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.parametrize(
    "flood",
    [
        (CHUNKED + b"0\r\n", b"X-A: y\r\n" * 8000),
        (CHUNKED + b"1;", b"e" * 65_536),
        (b"GET / HTTP/1.1\r\n", b"X-A: y\r\n" * 8000),
        (b"\r\n", b"\r\n" * 32_000),
        (b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 65_536),
    ],
)
def test_a_client_that_sends_without_end_costs_no_memory(flood: tuple[bytes, bytes]) -> None:
    begin, piece = flood
    with running_server() as server, RawClient(server.port) as client:
        before = resident_mib(server)
        client.send(begin)
        with contextlib.suppress(ConnectionError):
            for _ in range(500):
                client.send(piece)
        assert resident_mib(server, "VmHWM") - before < MOST_GROWTH_MIB
        assert server.request(consult_request()).status == 200


def test_clients_that_pipeline_and_never_read_cost_no_memory() -> None:
    with running_server() as server:
        before = resident_mib(server)
        for _ in range(6):
            with contextlib.ExitStack() as stack:
                for _ in range(20):
                    client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                    client.settimeout(0.5)
                    with contextlib.suppress(TimeoutError):
                        client.sendall(b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * 13_888)
                assert server.request(GET % b"/healthz").status == 200
        assert resident_mib(server, "VmHWM") - before < MOST_GROWTH_MIB
