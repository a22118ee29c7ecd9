"""A deployment under load: rolled, killed, re-keyed, reloaded, and payers notice nothing.

Two services with two workers each behind HAProxy, which terminates TLS, with a Valkey, callers with
JWT, and upstreams that are found by SRV records and want client certificates.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web
from aiohttp.typedefs import Handler
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cashier.sandbox import World, weather_named
from cashier.sandbox.risk import CHALLENGE_ANSWER
from cashier.sandbox.server import create_app
from cashier.web.token_issue import key_set, signed_token
from tests.fanout.l2.valkey_server import valkey_server
from tests.web.test_token_issue import private_pem
from tests.wire.scripted_dns import NameService, name_service

from .gateways import Edge, free_ports, haproxy_edge, program_of, until_ready
from .payer import FINAL
from .services import NAMES, Service, end_all
from .upstreams import TIMEOUT_S

pytestmark = [pytest.mark.peers, pytest.mark.processes]

SHOPPERS = 6
FIRST_ORDER = 100_000
# Longer than a service takes to see a changed file, list of addresses or key set.
SEEN_S = 8.0
# Several: a request is lost only if it is sent while its connection is closed.
EDGE_RELOADS = 5
HOST, RECORDS = "upstreams.internal", "_upstreams._tcp.example"
# What a gateway answers, and what a client sees, when a service was killed under a request.
LOST = {"502", "503", "504", "ServerDisconnectedError", "ClientOSError", "ClientConnectorError", "ClientPayloadError"}


class Issuer:
    """The issuer of bearer tokens. `file` has the public halves of all its keys."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "jwks.json"
        self._pems: list[bytes] = []
        self.add_key()
        self.use_newest_key()

    def add_key(self) -> None:
        self._pems.append(private_pem(Ed25519PrivateKey.generate()))
        self._publish()

    def use_newest_key(self) -> None:
        self._signing = self._pems[-1]

    def remove_oldest_key(self) -> None:
        self._pems.pop(0)
        self._publish()

    def token(self) -> str:
        claims = {"iss": "https://issuer.example", "aud": "cashier", "exp": time.time() + 600, "scope": "consult pay"}
        return signed_token(claims, self._signing)

    def _publish(self) -> None:
        """As Kubernetes does: another file takes the name."""
        changed = self.file.with_suffix(".new")
        changed.write_text(json.dumps(key_set(self._pems)))
        changed.rename(self.file)


class Certificates:
    """Of the upstreams, and that by which the services show who they are."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.ca_file, self.certificate, self.key = (folder / name for name in ("ca.pem", "tls.crt", "tls.key"))
        self._authority.cert_pem.write_to_path(str(self.ca_file))
        self.serial = ""
        self.rotate()

    def rotate(self) -> None:
        issued = self._authority.issue_cert("cashier.internal")
        (pem,) = issued.cert_chain_pems
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.certificate.write_bytes(pem.bytes())
        self.serial = f"{x509.load_pem_x509_certificate(pem.bytes()).serial_number:040X}"

    def of_upstreams(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_REQUIRED
        self._authority.configure_trust(context)
        self._authority.issue_cert(HOST).configure_cert(context)
        return context


class Upstreams:
    """The sandbox at two addresses. `serials`: of the callers' certificates since `look`."""

    def __init__(self, certificates: Certificates) -> None:
        self.world = World()
        self.serials: Counter[str] = Counter()
        self.by_port: Counter[int] = Counter()
        self._certificates = certificates

    @asynccontextmanager
    async def served(self, names: NameService) -> AsyncIterator[None]:
        application = create_app(self.world, weather_named("still"))
        application.middlewares.append(self._look)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            ports = free_ports(2)
            for port in ports:
                await web.TCPSite(runner, "127.0.0.1", port, ssl_context=self._certificates.of_upstreams()).start()
            names.zone = {
                (RECORDS, "SRV"): [f"0 1 {port} one.example." for port in ports],
                ("one.example", "A"): ["127.0.0.1"],
            }
            yield
        finally:
            await runner.cleanup()

    @web.middleware
    async def _look(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        if transport is not None:
            self.serials[transport.get_extra_info("peercert")["serialNumber"].zfill(40)] += 1
            self.by_port[transport.get_extra_info("sockname")[1]] += 1
        return await handler(request)


def written(folder: Path, port: int, names: NameService, valkey: str, issuer: Issuer, timeout_ms: int = 3900) -> Path:
    """The configuration of the service at this port.

    Without `marketing`: an offer is complete without it, and one that it missed would be refused as
    changed.
    """
    found = (
        f'url = "https://{HOST}"\ndiscover = {{ srv = "{RECORDS}", nameserver = "127.0.0.1:{names.port}" }}\n'
        f'http1 = {{ ca_file = "{folder}/ca.pem", client_cert_file = "{folder}/tls.crt",'
        f' client_key_file = "{folder}/tls.key", max_age_s = 2, connect_timeout_ms = 3000 }}\n'
    )
    lines = [
        f"[server]\nport = {port}\nworkers = 2\ndrain_s = 10\n[operations]\nenabled = false\n",
        '[auth]\nmode = "jwt"\nissuer = "https://issuer.example"\naudience = "cashier"\n',
        f'jwks_file = "{issuer.file}"\n[consult]\ndeadline_ms = 4000\nmax_deadline_ms = 4000\n',
        "[shed]\nenabled = false\n",
        # A busy machine is slow, not wrong: no call may end before a caller gives up.
        "[accept]\ncheck_ms = 5000\ndecide_ms = 5000\nlook_ms = 5000\n",
        f'[cache]\nshared = "{valkey}"\n[tokens]\nsecrets = ["{"t" * 32}"]\n',
        *(f"[sources.{name}]\n{found}timeout_ms = {timeout_ms}\n" for name in NAMES if name != "marketing"),
        *(f"[sources.{name}]\n{found}" for name in ("risk", "engine", "acquirer")),
    ]
    path = folder / f"{port}.toml"
    path.write_text("".join(lines))
    return path


class Shoppers:
    """Payers that pay order after order through the gateway, without repeating anything.

    `seen`: responses by status, and errors, since `step`. `paid`: orders that a payer saw paid.
    With `repeats` a request that was lost is sent again, as a checkout does.
    """

    def __init__(self, edge: Edge, world: World, issuer: Issuer) -> None:
        self.seen: Counter[str] = Counter()
        self.paid: set[str] = set()
        self.repeats = False
        self._edge, self._world, self._issuer = edge, world, issuer
        self._numbers = itertools.count(FIRST_ORDER)
        self._ends = asyncio.Event()
        self._tasks = [asyncio.create_task(self._shop()) for _ in range(SHOPPERS)]

    async def step(self, seconds: float = 2.0) -> Counter[str]:
        """What was seen since the last step, some seconds from now and several answers included."""
        await asyncio.sleep(seconds)
        async with asyncio.timeout(TIMEOUT_S):
            while self.seen["200"] <= 20:  # noqa: ASYNC110 - a busy machine is slow, not wrong
                await asyncio.sleep(0.02)
        for task in self._tasks:
            if task.done():
                task.result()
        seen, self.seen = self.seen, Counter()
        return seen

    async def end(self) -> None:
        self._ends.set()
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(*self._tasks)

    async def _shop(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(ssl=self._edge.trust)
        async with aiohttp.ClientSession(self._edge.url, timeout=timeout, connector=connector) as client:
            while not self._ends.is_set():
                await self._buy(client, f"o_{next(self._numbers)}")

    async def _buy(self, client: aiohttp.ClientSession, order_id: str) -> None:
        order = self._world.acquirer.order(order_id)
        assert order is not None
        request = {name: order[name] for name in ("order_id", "user_id", "merchant_id", "product", "country")}
        request["terminal"] = "APP"
        offer = await self._ask(client, "POST", "/v1/consult", request)
        methods = [method for method in offer.get("methods", ()) if method["availability"] == "AVAILABLE"]
        if not methods:
            return
        chosen = methods[0]
        submit = request | {
            "consult_token": offer["consult_token"],
            "method_id": chosen["method_id"],
            "expected_payable": chosen["amount"]["payable"],
        }
        payment = await self._ask(client, "POST", "/v1/payments", submit, {"Idempotency-Key": f"k-{order_id}"})
        while payment.get("status") not in FINAL and not self._ends.is_set():
            if "payment_id" not in payment:
                return
            path, token = f"/v1/payments/{payment['payment_id']}", payment["payment_token"]
            if payment["status"] == "CHALLENGE":
                body = {"payment_token": token, "value": CHALLENGE_ANSWER}
                payment = await self._ask(client, "POST", f"{path}/challenge", body)
            else:
                if payment["status"] == "ACTION_REQUIRED":
                    self._world.engine.settle(payment["payment_id"], "SUCCEEDED")
                payment = await self._ask(client, "GET", f"{path}?wait_ms=500", None, {"X-Payment-Token": token})
        if payment.get("status") == "SUCCEEDED":
            self.paid.add(order_id)

    async def _ask(
        self, client: aiohttp.ClientSession, method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Empty if there was no usable response."""
        while True:
            sent = {"Authorization": f"Bearer {self._issuer.token()}", **(headers or {})}
            try:
                async with client.request(method, path, json=body, headers=sent) as response:
                    document: dict[str, Any] = await response.json(content_type=None)
                    status = " ".join((str(response.status), document.get("code", ""))).rstrip()
            except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
                status, document = type(error).__name__, {}
            self.seen[status] += 1
            if status in ("200", "202"):
                return document
            if not (self.repeats and (status.partition(" ")[0] in LOST or document.get("code") == "IN_FLIGHT")):
                return {}
            await asyncio.sleep(0.1)


@pytest.fixture
def running() -> Iterator[list[Service]]:
    started: list[Service] = []
    yield started
    end_all(started)


async def test_payers_notice_nothing_of_what_is_done_to_a_deployment(
    running: list[Service], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if program_of("haproxy") is None:
        reason = "haproxy is not installed"
        (pytest.fail if request.config.getoption("--require-programs") else pytest.skip)(reason)
    certificates, issuer = Certificates(tmp_path), Issuer(tmp_path)
    upstreams, ports = Upstreams(certificates), free_ports(2)
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(name_service())
        await stack.enter_async_context(upstreams.served(names))
        valkey = stack.enter_context(valkey_server())
        paths = [written(tmp_path, port, names, valkey.url, issuer) for port in ports]
        current = [Service(path, set()) for path in paths]
        running += current
        edge = stack.enter_context(haproxy_edge(tmp_path, ports))
        for address in (*(f"http://127.0.0.1:{port}" for port in ports), edge.url):
            await until_ready(address, edge.trust)
        shoppers = Shoppers(edge, upstreams.world, issuer)
        seen = {"at rest": await shoppers.step()}

        for index, path in enumerate(paths):
            current[index].stop()
            assert await current[index].ended() in (0, -signal.SIGTERM)
            current[index] = Service(path, set())
            running.append(current[index])
            await until_ready(f"http://127.0.0.1:{ports[index]}")
            await asyncio.sleep(1.0)
        seen["rolled"] = await shoppers.step()

        valkey.kill()
        await asyncio.sleep(1.0)
        valkey.start()
        seen["valkey restarted"] = await shoppers.step()

        certificates.rotate()
        async with asyncio.timeout(TIMEOUT_S):
            while certificates.serial not in upstreams.serials or len(upstreams.serials) > 1:
                upstreams.serials.clear()
                await asyncio.sleep(2.0)
        seen["certificate rotated"] = await shoppers.step()

        for _ in range(EDGE_RELOADS):
            edge.rotate()
            await edge.until_shown()
        seen["certificate of HAProxy rotated"] = await shoppers.step()

        issuer.add_key()
        seen["key published"] = await shoppers.step(SEEN_S)
        issuer.use_newest_key()
        seen["key rotated"] = await shoppers.step()
        issuer.remove_oldest_key()
        seen["old key removed"] = await shoppers.step(SEEN_S)

        for port, service in zip(ports, current, strict=True):
            written(tmp_path, port, names, valkey.url, issuer, timeout_ms=3800)
            service.reload()
        seen["reloaded"] = await shoppers.step()

        shoppers.repeats = True
        await asyncio.sleep(0.5)
        await current[0].kill()
        killed = await shoppers.step(3.0)
        current[0] = Service(paths[0], set())
        running.append(current[0])
        await until_ready(f"http://127.0.0.1:{ports[0]}")
        seen["started again"] = await shoppers.step(SEEN_S)
        await shoppers.end()

    assert {step: rest for step, statuses in seen.items() if (rest := set(statuses) - {"200", "202"})} == {}, seen
    assert set(killed) <= {"200", "202", "409", *LOST}, killed
    assert min(upstreams.by_port.values()) > sum(upstreams.by_port.values()) / 4, "both addresses carry load"
    upstreams.world.catch_up()
    assert upstreams.world.audit() == []
    ledger = Counter(entry.order_id for entry in upstreams.world.ledger.entries if entry.what == "SUCCEEDED")
    assert set(ledger.values()) == {1}
    assert shoppers.paid <= set(ledger)
    assert len(shoppers.paid) > 50
