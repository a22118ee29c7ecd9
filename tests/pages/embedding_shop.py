"""A shop on an origin of its own, whose page embeds the cashier of a running service."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cashier.sandbox import CASES

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Shop</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1">
{script}</head><body><h1>Your order</h1>
<cashier-methods><a href="{link}">Pay on the secure page</a></cashier-methods>
<script src="/log.js"></script></body></html>"""
# What a shop does with the events.
_LOG = """
window.seen = [];
for (const name of ["view", "choice", "submit", "redirect", "result", "error"]) {
  document.addEventListener(`cashier-${name}`, (event) => window.seen.push([name, event.detail]));
}
"""


class EmbeddingShop:
    """`cashier`: the address of the service. `has_script`: the page loads it."""

    def __init__(self) -> None:
        self.cashier = ""
        self.address = ""
        self.order_id = "o_1020"
        self.has_script = True
        self.policy = ""

    @property
    def link(self) -> str:
        """Asked for by the shop's back end."""
        case = next(case for case in CASES.values() if case.request["order_id"] == self.order_id)
        names = ("order_id", "user_id", "merchant_id", "product", "terminal", "country")
        body: dict[str, Any] = {name: case.request[name] for name in names}
        body |= {"locale": "en", "return_url": f"{self.address}/thanks"}
        request = urllib.request.Request(
            f"{self.cashier}/v1/cashier-sessions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            return str(json.load(response)["url"])

    def page(self) -> str:
        script = f'<script src="{self.cashier}/cashier.js" defer></script>' if self.has_script else ""
        return _PAGE.format(script=script, link=self.link)

    @contextmanager
    def running(self) -> Iterator[str]:
        shop = self

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script = self.path == "/log.js"
                body = (_LOG if script else shop.page() if self.path == "/" else "<h1>Thanks</h1>").encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/javascript" if script else "text/html")
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
            yield self.address
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
