"""Health, readiness, unknown paths, mounting and the lifespan of an application."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime

import msgspec
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message

import cashier
from cashier.fanout.ask import Importance
from cashier.fanout.reachability import Reachability, SourceReachability
from cashier.web import CashierApp, app, owning_app
from cashier.web.endpoint_path import API_PATHS
from tests.web.asgi_client import JSON, CapturedResponse, PendingRequest, call, scope
from tests.web.fake_pages import FakePages
from tests.web.fake_payments import ID, PAYMENT_PATH, TOKEN, FakePayments
from tests.web.fake_service import BODY, REACHABILITY, FakeService, opener


async def get(application: ASGIApp, path: str, method: str = "GET", root_path: str = "") -> CapturedResponse:
    return await call(application, b"", headers={}, method=method, path=path, root_path=root_path)


class Lifespan:
    """The lifespan of an application, in a task of its own."""

    def __init__(self, application: CashierApp) -> None:
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: asyncio.Queue[str] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(application))

    async def _run(self, application: CashierApp) -> None:
        async def send(message: Message) -> None:
            self.sent.put_nowait(message["type"])

        await application({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self.inbox.get, send)

    async def send(self, event: str) -> str:
        self.inbox.put_nowait({"type": f"lifespan.{event}"})
        return await self.sent.get()


async def test_health_does_not_depend_on_readiness() -> None:
    service = FakeService()
    service.ready = False
    assert (await get(app(service), "/healthz")).status == 200


async def test_health_says_since_when_the_process_lives_and_its_version() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    application = app(FakeService())
    body = (await get(application, "/healthz")).json
    assert body["status"] == "ok"
    assert body["version"] == cashier.__version__
    assert before <= datetime.fromisoformat(body["since"]) <= datetime.now(UTC)
    assert (await get(application, "/healthz")).json == body


async def test_readiness_names_each_source_and_what_is_known_about_it() -> None:
    service = FakeService()
    application = app(service)
    sources = json.loads(msgspec.json.encode(REACHABILITY))
    assert sources[0] == {"name": "order", "class": "REQUIRED", "state": "REACHABLE"}
    assert (await get(application, "/readyz")).json == {"status": "ready", "sources": sources}
    application.draining = True
    response = await get(application, "/readyz")
    assert response.json["readiness"] == {"status": "draining", "sources": sources}
    application.draining, service.ready = False, False
    assert (await get(application, "/readyz")).json["readiness"] == {"status": "starting", "sources": []}


async def test_a_service_that_connects_names_the_required_sources_that_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = FakeService()
    service.sources_reached = False
    rows = [("order", "REQUIRED", "REACHABLE"), ("member", "REQUIRED", "UNREACHABLE"), ("quota", "GATING", "IDLE")]
    known = tuple(SourceReachability(name, Importance(kind), Reachability(state)) for name, kind, state in rows)
    monkeypatch.setattr(service, "reachability", lambda: known)
    problem = (await get(app(service), "/readyz")).json
    assert problem["detail"] == "The service is connecting to its sources; not connected: member."
    assert [row["name"] for row in problem["readiness"]["sources"]] == ["order", "member", "quota"]


async def test_readiness_follows_the_service_and_draining() -> None:
    service = FakeService()
    application = app(service)
    assert (await get(application, "/readyz")).status == 200
    service.ready = False
    assert (await get(application, "/readyz")).problem() == (503, "NOT_READY")
    service.ready, service.sources_reached = True, False
    response = await get(application, "/readyz")
    assert response.problem() == (503, "NOT_READY")
    assert "connecting" in response.json["detail"]
    assert (await call(application)).status == 200, "a request is served all the same"
    service.sources_reached, application.draining = True, True
    response = await get(application, "/readyz")
    assert response.problem() == (503, "NOT_READY")
    assert "draining" in response.json["detail"]
    assert (await call(application)).status == 200, "a request during draining is served"


@pytest.mark.parametrize(
    "path", ["/", "/v1/consult/", "/v1/consultx", "/v1", "//v1/consult", "/healthz/", "/v1/payments/", "/v1/payment"]
)
async def test_an_unknown_path_is_a_problem(path: str) -> None:
    assert (await get(app(FakeService()), path)).problem() == (404, "NOT_FOUND")


@pytest.mark.parametrize("pattern", [path for path in API_PATHS if not path.endswith("}")])
@pytest.mark.parametrize("more", ["\n", "\n\n", "\r\n", "\0", " ", "/"])
async def test_a_path_with_anything_behind_it_is_another_path(pattern: str, more: str) -> None:
    """A gateway that blocks a path blocks that path alone."""
    path = re.sub("{.*?}", ID, pattern)
    application = app(FakeService(FakePayments()))
    mounted = Starlette()
    mounted.mount("/pay", application)
    for method in ("GET", "POST"):
        known = await get(application, path, method)
        assert known.status != 404, "a path that leads somewhere"
        assert (await get(application, path + more, method)).problem() == (404, "NOT_FOUND")
        assert (await get(mounted, f"/pay{path}{more}", method)).status == 404


async def test_a_wrong_method_gets_the_allowed_ones() -> None:
    response = await get(app(FakeService()), "/healthz", "POST")
    assert response.problem() == (405, "METHOD_NOT_ALLOWED")
    assert {method.strip() for method in response.headers["allow"].split(",")} == {"GET", "HEAD"}


async def test_every_endpoint_returns_the_request_id() -> None:
    response = await call(app(FakeService()), headers={"X-Request-Id": "r-1"}, method="GET", path="/nowhere")
    assert response.headers["x-request-id"] == "r-1"


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_the_application_works_under_a_mount_point(framework: type[Starlette]) -> None:
    outer = framework()
    outer.mount("/pay", app(FakeService()))
    assert (await call(outer, path="/pay/v1/consult")).status == 200
    assert (await get(outer, "/pay/v1/consult")).problem() == (405, "METHOD_NOT_ALLOWED")
    assert (await get(outer, "/pay/healthz")).status == 200
    assert (await get(outer, "/pay/nowhere")).problem() == (404, "NOT_FOUND")
    assert (await call(outer, path="/v1/consult")).status == 404


@pytest.mark.looptime
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/consult", {}),
        ("/v1/consult", {"accept": "text/event-stream"}),
        (PAYMENT_PATH, {"x-payment-token": TOKEN}),
        (f"{PAYMENT_PATH}/events", {"x-payment-token": TOKEN}),
    ],
)
async def test_to_middleware_around_it_a_client_that_leaves_is_no_bug(
    framework: type[Starlette], path: str, more: dict[str, str]
) -> None:
    payments = FakePayments()
    payments.open.clear()
    service = FakeService(payments)
    service.open.clear()

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    outer = framework(middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_on)])
    outer.mount("/pay", app(service))
    method, body = ("POST", BODY) if path == "/v1/consult" else ("GET", b"")
    pending = PendingRequest(outer, scope(method, f"/pay{path}", JSON | more, query=b"wait_ms=9000"), body)
    await asyncio.wait(
        [asyncio.ensure_future(event.wait()) for event in (service.entered, payments.entered)],
        return_when=asyncio.FIRST_COMPLETED,
    )
    pending.incoming.disconnect()
    await pending.finished()
    assert pending.response.status == 499


async def test_the_application_works_behind_a_proxy_with_and_without_prefix() -> None:
    application = app(FakeService())
    assert (await call(application, path="/v1/consult", root_path="/pay")).status == 200
    assert (await call(application, path="/pay/v1/consult", root_path="/pay")).status == 200


async def test_a_passed_service_is_not_closed() -> None:
    pages = FakePages()
    lifespan = Lifespan(app(FakeService(), pages=pages))
    assert await lifespan.send("startup") == "lifespan.startup.complete"
    assert await lifespan.send("shutdown") == "lifespan.shutdown.complete"
    await lifespan.task
    assert pages.closed == 0


async def test_an_owned_service_is_opened_and_closed_with_the_server() -> None:
    events: list[str] = []
    pages = FakePages()
    application = owning_app(opener(FakeService(), events), pages=pages)
    assert (await get(application, "/readyz")).problem() == (503, "NOT_READY")
    assert (await call(application)).problem() == (503, "NOT_READY")
    lifespan = Lifespan(application)
    assert await lifespan.send("startup") == "lifespan.startup.complete"
    assert (await get(application, "/readyz")).status == 200
    assert (await call(application, headers=JSON)).status == 200
    assert (events, pages.closed) == (["opened"], 0)
    assert await lifespan.send("shutdown") == "lifespan.shutdown.complete"
    assert (events, pages.closed) == (["opened", "closed"], 1)
    await lifespan.task
