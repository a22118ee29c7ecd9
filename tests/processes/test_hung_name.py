"""A name whose lookup never ends costs its own source only, and the exit does not wait for it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.support import command_processes

from .payer import UNCHALLENGED, Payer
from .services import DRAIN_S, Service, write_configuration
from .upstreams import Upstreams

pytestmark = pytest.mark.processes

# In the place of the system's resolver. Only this knows the names, so a lookup elsewhere fails.
SHIM = """
import socket, time

def getaddrinfo(host, *_args, **_options):
    if host == "hangs.test":
        with open(__file__ + ".hangs", "a") as file:
            file.write("x")
        time.sleep(3600)
    address = "127.0.0.1" if host == "works.test" else host
    return real(address, *_args, **_options)

real, socket.getaddrinfo = socket.getaddrinfo, getaddrinfo
"""


async def test_one_hung_name_leaves_payments_alone_and_delays_no_exit(
    upstreams: Upstreams, port: int, secrets: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SHIM)
    monkeypatch.setitem(command_processes.ENVIRONMENT, "PYTHONPATH", str(tmp_path))
    path = write_configuration(tmp_path / "cashier.toml", port)
    text = path.read_text().replace("127.0.0.1", "works.test")
    before, marketing = text.split("[sources.marketing]\n")
    path.write_text(f"{before}[sources.marketing]\n{marketing.replace('works.test', 'hangs.test', 1)}")
    service = Service(path, secrets)
    try:
        async with Payer(await service.ready(), secrets) as payer:
            for _ in range(3):
                await payer.consult(UNCHALLENGED)
            reply = await payer.submit(await payer.consult(UNCHALLENGED), "beside-a-hung-name")
            assert (reply.status, reply.body["status"]) == (200, "SUCCEEDED")
            assert payer.lost == 0
        assert (tmp_path / "sitecustomize.py.hangs").read_text() == "x"
        stopped_s = time.monotonic()
        service.stop()
        assert await service.ended() in (0, -signal.SIGTERM)
        assert time.monotonic() - stopped_s < DRAIN_S
    finally:
        service.end()
    upstreams.assert_paid_once(UNCHALLENGED.order_id)
