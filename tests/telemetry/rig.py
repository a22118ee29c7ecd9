"""A service between recording upstreams and a collector, all on sockets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from cashier import Cashier, ConsultRequest
from cashier.consultation.answer import Consultation
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.domain.payment_request import PaymentRequest
from cashier.payments.flow import PaymentFlow
from cashier.sandbox import CASES, Weather, World, create_app, parse_profile, weather_named
from cashier.settings.loader import configuration
from cashier.settings.schema import SERVICES
from tests.telemetry.collector import Collector, ReceivedSpan, collector, until

CASE = "balance_is_enough"
OTP = "246810"
_NAMES = (
    (r"/orders/[^/]+/result", "acquirer"),
    (r"/orders/.*", "order"),
    (r"/merchants/.*", "merchant"),
    (r"/members/[^/]+", "member"),
    (r".*/cards", "card"),
    (r".*/balances", "balance"),
    (r".*/promotions", "marketing"),
    (r".*/quotas", "quota"),
    (r"/channels", "channel"),
    (r"/risk/.*", "risk"),
    (r"/payments.*", "engine"),
)


class UpstreamRequest(Struct, frozen=True):
    """One request that an upstream received."""

    name: str
    path: str
    headers: dict[str, str]

    @property
    def span(self) -> tuple[str, str] | None:
        """Trace and span of its traceparent."""
        header = self.headers.get("traceparent")
        return None if header is None else (header[3:35], header[36:52])


class Rig:
    """`requests`: what the upstreams received. `cashiers`: workers that share nothing.

    `spoil`: changes the answer of an upstream, which it is given by name with the request.
    """

    def __init__(self, collected: Collector) -> None:
        self.world = World()
        self.weather: Weather = weather_named("still")
        self.requests: list[UpstreamRequest] = []
        self.collector = collected
        self.cashiers: list[Cashier] = []
        self.spoil: Callable[[str, web.Request, web.StreamResponse], web.StreamResponse] = lambda _name, _, right: right

    @property
    def cashier(self) -> Cashier:
        return self.cashiers[0]

    def payments(self, worker: int = 0) -> PaymentFlow:
        payments = self.cashiers[worker].payments
        assert payments is not None
        return payments

    async def consult(self, case: str = CASE, traceparent: str | None = None, **fields: Any) -> Consultation:
        return await self.cashier.consult(consult_request(case, **fields), traceparent=traceparent, request_id="r-1")

    async def payment_request(self, case: str, method_id: str, **fields: Any) -> PaymentRequest:
        consultation = await self.consult(case, "00-" + "7" * 32 + "-" + "7" * 16 + "-00")
        method = next(method for method in consultation.methods if method.method_id == method_id)
        assert method.amount is not None
        names = ("order_id", "user_id", "merchant_id", "product", "terminal", "locale")
        body = {name: CASES[case].request[name] for name in names if name in CASES[case].request}
        body |= {
            "method_id": method_id,
            "expected_payable": msgspec.to_builtins(method.amount.payable),
            "promotion_ids": [discount.promotion_id for discount in method.amount.discounts],
            "consult_token": consultation.consult_token,
            "device": {"ip": "203.0.113.77", "device_id": "device-of-the-payer", "user_agent": "Browser/1"},
        }
        self.requests.clear()
        return msgspec.convert({**body, **fields}, PaymentRequest)

    async def close(self) -> None:
        """Export what has been traced. Opens the workers again: a test ends by closing them."""
        for cashier in self.cashiers:
            await cashier.__aexit__(None, None, None)
            await cashier.__aenter__()

    def profile(self, name: str, profile: dict[str, Any]) -> None:
        self.weather.change(name, parse_profile(name, profile, self.weather.start(name)))

    async def spans(self, at_least: int = 1) -> list[ReceivedSpan]:
        """What has been exported, once there is as much."""
        await until(lambda: len(self.collector.spans) >= at_least)
        return self.collector.spans

    def record(self) -> Any:
        @web.middleware
        async def middleware(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            name = next(name for pattern, name in _NAMES if re.fullmatch(pattern, request.path))
            headers = {key.lower(): value for key, value in request.headers.items()}
            self.requests.append(UpstreamRequest(name, request.path, headers))
            return self.spoil(name, request, await handler(request))

        return middleware


def consult_request(case: str = CASE, **fields: Any) -> ConsultRequest:
    return msgspec.convert({**CASES[case].request, **fields}, ConsultRequest)


@asynccontextmanager
async def rig(
    workers: int = 1,
    sources: dict[str, Any] | None = None,
    accept: dict[str, Any] | None = None,
    **telemetry: Any,
) -> AsyncIterator[Rig]:
    """`sources`: settings of single sources. `accept`, `telemetry`: of these sections."""
    async with AsyncExitStack() as stack:
        opened = Rig(await stack.enter_async_context(collector()))
        app = create_app(opened.world, opened.weather)
        app.middlewares.append(opened.record())
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        url = f"http://{host}:{port}"
        names = (*SOURCE_NAMES, *SERVICES)
        table: dict[str, Any] = {
            "consult": {"deadline_ms": 20_000, "max_deadline_ms": 20_000, "grace_ms": 20_000},
            "accept": {"check_ms": 20_000, "most_in_background": 0, **(accept or {})},
            "tokens": {"secrets": ("s" * 32,)},
            "telemetry": {"otlp_url": opened.collector.url, "sample_bps": 10_000, **telemetry},
            "sources": {name: {"url": url, **(sources or {}).get(name, {})} for name in names},
        }
        for name in SOURCE_NAMES:
            table["sources"][name] = {"timeout_ms": 10_000, **table["sources"][name]}
        for source in table["sources"].values():
            source["http1"] = {"connect_timeout_ms": 10_000}  # for a busy machine
        for _ in range(workers):
            opened.cashiers.append(await stack.enter_async_context(Cashier(config=configuration(table, "a test"))))
        yield opened


def tree(spans: list[ReceivedSpan]) -> Iterator[tuple[ReceivedSpan, ReceivedSpan]]:
    """Each span with its parent, if that was received."""
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    for span in spans:
        parent = by_id.get((span.trace_id, span.parent_id or ""))
        if parent is not None:
            yield span, parent
