"""A shop on an origin of its own, whose pages embed the cashier of a running service.

The sandbox runs in this process: a test places orders, lets payers pay and changes the weather.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.sandbox import Weather, World, serve, weather_named
from cashier.sandbox.records import record
from cashier.settings.schema import SERVICES
from tests.support.command_processes import running

T = TypeVar("T")
# Of each market: merchant, payer and an amount that its methods can carry.
CHINA = {"merchant_id": "m_1", "user_id": "u_1", "country": "CN", "amount": ("CNY", 12_800)}
INDONESIA = {"merchant_id": "m_62", "user_id": "u_62", "country": "ID", "amount": ("IDR", 25_000_000)}
# Offers each kind, also codes to scan.
ANY_SHOP = CHINA | {"merchant_id": "m_100000"}
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Shop</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1">
{script}</head><body><h1>Your order</h1>
{elements}
<script src="/log.js"></script></body></html>"""
_ELEMENT = '<cashier-methods id="{order_id}"><a href="{link}">Pay on the secure page</a></cashier-methods>'
# What a shop does with the events.
_LOG = """
window.seen = [];
for (const name of ["view", "choice", "submit", "redirect", "result", "error"]) {
  document.addEventListener(`cashier-${name}`, (event) => window.seen.push([name, event.detail]));
}
"""


class EmbeddingShop:
    """`cashier`: the address of the service. `has_script`: its pages load the script.

    `orders`: those that its page shows, each in an element of its own. `names_amount`: its links
    hold for the amount of the order only.
    """

    def __init__(self) -> None:
        self.cashier = ""
        self.address = ""
        self.sandbox = ""
        self.world = World()
        # A code to scan within a shop's page.
        self.world.population.change_channel(
            "ch_mqr_alipay", products=["SCAN", "EMBEDDED_CASHIER"], terminals=["POS", "PC"]
        )
        self.weather: Weather = weather_named("still")
        self.orders: list[str] = []
        self.has_script = True
        self.names_amount = False
        self.policy = ""
        self.locale = "en"
        self.terminal = "H5"
        self._loop = asyncio.new_event_loop()
        self._placed = 0
        self._service = ExitStack()
        self._config = Path()

    # What a test does

    def open(self, **market: Any) -> None:
        """Like a new shop, with one order."""
        self.orders, self.has_script, self.policy, self.locale, self.terminal = [], True, "", "en", "H5"
        self.names_amount = False
        self.place(**market)
        if not self.cashier:
            self.start_service()

    def place(self, **market: Any) -> str:
        """One more order in its page."""
        fields = {**CHINA, **market}
        currency, value = fields.pop("amount")
        self._placed += 1
        order = record(
            "order",
            **fields,
            order_id=f"o_embedded_{self._placed}",
            amount={"currency": currency, "value": value},
            product="EMBEDDED_CASHIER",
            category="books",
            title="Three novels and a bookend",
            expires_at=(self.world.clock().astimezone(UTC) + timedelta(hours=2)).isoformat(timespec="seconds"),
        )
        self.in_sandbox(lambda: self.world.population.place_order(order))
        self.orders.append(order["order_id"])
        return str(order["order_id"])

    def settle(self, order_id: str | None = None) -> None:
        """The payer pays in the wallet, at the bank or counter."""

        def settle() -> None:
            payment_id = self.world.acquirer.live_attempt(order_id or self.orders[0])
            assert payment_id is not None
            assert self.world.engine.settle(payment_id, "SUCCEEDED").status == 200

        self.in_sandbox(settle)

    def reprice(self, order_id: str, value: int) -> None:
        """The payer changes the cart or its delivery. `value`: in minor units."""

        def reprice() -> None:
            order = self.world.population._orders[order_id]
            order["amount"] = {**order["amount"], "value": value}

        self.in_sandbox(reprice)

    def in_sandbox(self, call: Callable[[], T]) -> T:
        async def called() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(10)

    def link(self, order_id: str) -> str:
        """Asked for by the shop's back end."""
        order = self.in_sandbox(lambda: self.world.population.placed_order(order_id)) or {}
        body = {name: order[name] for name in ("order_id", "user_id", "merchant_id", "product", "country")}
        body |= {"amount": order["amount"]} if self.names_amount else {}
        body |= {"terminal": self.terminal, "locale": self.locale, "return_url": f"{self.address}/"}
        request = urllib.request.Request(
            f"{self.cashier}/v1/cashier-sessions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            return str(json.load(response)["url"])

    def page(self) -> str:
        script = f'<script src="{self.cashier}/cashier.js" defer></script>' if self.has_script else ""
        elements = "".join(_ELEMENT.format(order_id=each, link=self.link(each)) for each in self.orders)
        return _PAGE.format(script=script, elements=elements)

    # What runs

    @contextmanager
    def running(self, directory: Path) -> Iterator[None]:
        """The shop, the sandbox and a service of two workers, each on a port that stays its own."""
        with self._serving_pages(), self._serving_sandbox():
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                port = listener.getsockname()[1]
            self._config = directory / "cashier.toml"
            self._config.write_text(self._toml(port))
            # Codes to scan, within a shop's page too.
            methods = files("cashier.defaults").joinpath("methods.toml").read_text()
            (directory / "methods.toml").write_text(methods.replace('["SCAN"]', '["SCAN", "EMBEDDED_CASHIER"]'))
            try:
                yield
            finally:
                self.kill_service()

    def start_service(self) -> None:
        command = self._service.enter_context(running("serve", "--config", str(self._config)))
        self.cashier = command.address("Serving on")

    def kill_service(self) -> None:
        """SIGKILL to all of its processes."""
        self.cashier = ""
        self._service.close()

    def _toml(self, port: int) -> str:
        tables: dict[str, dict[str, Any]] = {
            "server": {"port": port, "workers": 2, "shutdown_delay_s": 0},
            "operations": {"enabled": False},
            "pages": {"enabled": True, "first_answer_ms": 200},
            **{
                f"merchants.{name}": {"origins": [self.address]}
                for name in ("m_1", INDONESIA["merchant_id"], ANY_SHOP["merchant_id"])
            },
            # A busy machine is neither slow sources nor overload.
            "consult": {"deadline_ms": 10_000, "max_deadline_ms": 10_000, "grace_ms": 9_000},
            "shed": {"enabled": False},
            # One worker knows for seconds the coupons that a test has spent through the other.
            **{
                f"sources.{name}": {"url": self.sandbox, "timeout_ms": 9990, "cache": name != "marketing"}
                for name in SOURCE_NAMES
            },
            **{f"sources.{name}": {"url": self.sandbox} for name in SERVICES},
        }
        return "".join(
            f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
            for name, table in tables.items()
        )

    @contextmanager
    def _serving_sandbox(self) -> Iterator[None]:
        started, end = threading.Event(), asyncio.Event()

        async def served() -> None:
            async with serve(port=0, world=self.world, weather=self.weather) as port:
                self.sandbox = f"http://127.0.0.1:{port}"
                started.set()
                await end.wait()

        thread = threading.Thread(target=lambda: self._loop.run_until_complete(served()))
        thread.start()
        assert started.wait(30)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(end.set)
            thread.join()
            self._loop.close()

    @contextmanager
    def _serving_pages(self) -> Iterator[None]:
        shop = self

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script = self.path == "/log.js"
                body = (_LOG if script else shop.page()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/javascript" if script else "text/html")
                self.send_header("Cache-Control", "no-store")
                if shop.policy and not script:
                    self.send_header("Content-Security-Policy", shop.policy)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
