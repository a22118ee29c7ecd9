"""The limit of open files, and the connections that it leaves for clients."""

from __future__ import annotations

import resource
from contextlib import ExitStack

import pytest

import cashier.web.serve as serve_module
from cashier.web.server import ServerSettings
from tests.web.server_process import GET, RawClient, running_server


def test_a_low_soft_limit_of_open_files_limits_no_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with ExitStack() as stack:
            server = stack.enter_context(running_server())
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            clients = [stack.enter_context(RawClient(server.port)) for _ in range(80)]
            for client in clients:
                client.send(GET % b"/healthz")
            assert {client.read_response().status for client in clients} == {200}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("open_files", "wanted", "granted"),
    [
        (1024, 10_000, 768),
        (256, 10_000, 192),
        (256, 100, 100),
        (128, 10_000, 64),
        (64, 10_000, 32),
        (1, 5, 1),
        (-1, 10_000, 10_000),
    ],
)
def test_clients_leave_open_files_for_upstream_services(
    monkeypatch: pytest.MonkeyPatch, open_files: int, wanted: int, granted: int
) -> None:
    monkeypatch.setattr(serve_module, "raise_open_files_limit", lambda: open_files)
    settings = ServerSettings(max_connections=wanted)
    assert serve_module.fit_open_files(settings).max_connections == granted
