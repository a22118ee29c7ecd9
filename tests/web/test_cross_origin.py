"""Pages of other origins: preflight requests, readable responses, and one list per merchant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from cashier.consultation.answer import OrderUnknown, RequiredSourceUnavailable
from cashier.settings.loader import configuration
from cashier.settings.schema import ConfigurationError
from cashier.web import CashierApp, app
from cashier.web.cross_origin import AllowedOrigins, MerchantSettings, origin_faults
from tests.web.asgi_client import JSON, CapturedResponse, call
from tests.web.fake_payments import BODY as SUBMIT
from tests.web.fake_payments import ID, PAID, PAYMENT_PATH, TICKET, TOKEN, FakePayments
from tests.web.fake_service import BODY, SOURCES, FakeService
from tests.web.test_openapi import BEARER_AUTH, fetch_document
from tests.web.test_overload_response import ABOVE_HIGHEST, RecordingLadder
from tests.web.virtual_client import VirtualServer

SHOP, STALL, FOREIGN = "https://shop.example", "http://localhost:3000", "https://evil.example"
MERCHANTS = {"m_1": MerchantSettings((SHOP,)), "m_2": MerchantSettings((STALL,)), "m_3": MerchantSettings()}
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
# Valid requests, all of m_1.
ACTIONS: dict[str, dict[str, Any]] = {
    "consult": {"body": BODY},
    "stream": {"body": BODY, "headers": {"accept": "text/event-stream"}},
    "submit": {"path": "/v1/payments", "body": SUBMIT, "headers": {"idempotency-key": "k-1"}},
    "answer": {
        "path": f"{PAYMENT_PATH}/challenge",
        "body": json.dumps({"payment_token": TOKEN, "value": "246810"}).encode(),
    },
    "cancel": {"path": f"{PAYMENT_PATH}/cancel", "headers": {"x-payment-token": TOKEN}},
    "look": {"path": PAYMENT_PATH, "method": "GET", "headers": {"x-payment-token": TOKEN}},
    "follow": {"path": f"{PAYMENT_PATH}/events", "method": "GET", "headers": {"x-payment-token": TOKEN}},
    "follow by ticket": {"path": f"{PAYMENT_PATH}/events", "method": "GET", "query": f"ticket={TICKET}".encode()},
    "ticket": {"path": f"{PAYMENT_PATH}/stream-ticket", "headers": {"x-payment-token": TOKEN}},
}
EACH_ACTION = pytest.mark.parametrize("action", list(ACTIONS.values()), ids=list(ACTIONS))


@pytest.fixture
def service() -> FakeService:
    payments = FakePayments()
    payments.publish(PAID, None)
    return FakeService(payments)


@pytest.fixture
def application(service: FakeService) -> CashierApp:
    return app(service, origins=AllowedOrigins(MERCHANTS))


async def send(application: Any, action: dict[str, Any], **headers: str) -> CapturedResponse:
    """`headers`: underscores stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    arguments = {"body": b""} | action | {"headers": JSON | action.get("headers", {}) | named}
    return await call(application, arguments.pop("body"), **arguments)


def readable_by(response: CapturedResponse) -> str | None:
    """The origin whose pages may read the response."""
    headers = response.headers
    assert "access-control-allow-credentials" not in headers
    allowed = headers.get("access-control-allow-origin")
    if allowed is not None:
        assert headers["vary"] == "Origin"
        assert set(headers["access-control-expose-headers"].lower().split(", ")) == {
            "retry-after",
            "server-timing",
            "www-authenticate",
            "x-request-id",
        }
    return allowed


@EACH_ACTION
async def test_a_page_of_the_merchant_may_act_and_read(application: CashierApp, action: dict[str, Any]) -> None:
    response = await send(application, action, origin=SHOP)
    assert response.status in (200, 202)
    assert readable_by(response) == SHOP


@EACH_ACTION
@pytest.mark.parametrize("origin", [STALL, FOREIGN, "null", "", "https://shop.example:443", "https://SHOP.example"])
async def test_a_page_that_is_not_the_merchants_may_not_act(
    application: CashierApp, service: FakeService, action: dict[str, Any], origin: str
) -> None:
    response = await send(application, action, origin=origin)
    assert response.problem() == (403, "ORIGIN_NOT_ALLOWED")
    # The page of another merchant can read why.
    assert readable_by(response) == (STALL if origin == STALL else None)
    assert response.headers["vary"] == "Origin"
    assert service.calls == []
    assert isinstance(service.payments, FakePayments)
    assert service.payments.calls == []


@EACH_ACTION
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "pay.example", "origin": "https://pay.example"},
        {"host": "Pay.Example:8443", "origin": "https://pay.example:8443"},
        # A proxy has changed Host.
        {"host": "10.0.0.1", "origin": "https://pay.example", "sec_fetch_site": "same-origin"},
    ],
)
async def test_programs_and_pages_of_the_apis_own_origin_are_not_concerned(
    application: CashierApp, action: dict[str, Any], headers: dict[str, str]
) -> None:
    response = await send(application, action, **headers)
    assert response.status in (200, 202)
    assert readable_by(response) is None
    if not headers:
        assert "vary" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example", "origin": FOREIGN, "sec_fetch_site": "cross-site"},
        {"host": "pay.example", "origin": "https://pay.example", "sec_fetch_site": "same-site"},
        {"host": "null", "origin": "null", "sec_fetch_site": "same-origin"},
        {"host": "pay.example", "origin": "https://pay.example.evil.example"},
        {"host": "", "origin": ""},
        {"host": "", "origin": "https://"},
    ],
)
async def test_another_origin_cannot_pass_for_the_apis_own(application: CashierApp, headers: dict[str, str]) -> None:
    assert (await send(application, ACTIONS["consult"], **headers)).problem() == (403, "ORIGIN_NOT_ALLOWED")


async def test_an_invalidation_is_refused_to_every_page_elsewhere(
    application: CashierApp, service: FakeService
) -> None:
    action = {"path": "/v1/invalidate", "body": b'{"source": "card", "key": "u_1"}'}
    for origin in (SHOP, STALL, FOREIGN):
        assert (await send(application, action, origin=origin)).problem() == (403, "ORIGIN_NOT_ALLOWED")
    assert service.invalidated == []
    assert (await send(application, action)).status == 200
    assert (await send(application, action, host="h", origin="http://h")).status == 200


async def test_errors_can_be_read(service: FakeService) -> None:
    application = app(service, body_limit_bytes=1000, origins=AllowedOrigins(MERCHANTS))
    secured = app(service, bearer_auth=BEARER_AUTH, origins=AllowedOrigins(MERCHANTS))
    consult = ACTIONS["consult"]
    responses = [
        await send(application, consult | {"body": b"{"}, origin=SHOP),
        await send(secured, consult, origin=SHOP),
        await send(secured, ACTIONS["look"], origin=SHOP),
        await send(application, {"path": "/v1/nothing"}, origin=SHOP),
        await send(application, ACTIONS["look"] | {"path": "/v1/payments/pay_x"}, origin=SHOP),
        await send(application, consult | {"method": "PUT"}, origin=SHOP),
        await send(application, consult | {"body": b" " * 1001}, origin=SHOP),
        await send(application, consult | {"headers": {"content-type": "text/plain"}}, origin=SHOP),
        await send(application, consult | {"body": b"{}"}, origin=SHOP),
    ]
    for service.raises in (OrderUnknown("o_1"), RequiredSourceUnavailable(SOURCES, ("order",)), ZeroDivisionError()):
        responses.append(await send(application, consult, origin=SHOP))
    service.ready = False
    responses.append(await send(application, ACTIONS["submit"], origin=SHOP))
    assert [response.status for response in responses] == [
        400, 401, 401, 404, 404, 405, 413, 415, 422, 404, 503, 500, 503,
    ]  # fmt: skip
    assert [readable_by(response) for response in responses] == [SHOP] * len(responses)


@pytest.mark.parametrize("bearer_auth", [None, BEARER_AUTH])
async def test_a_preflight_names_the_methods_of_each_path(service: FakeService, bearer_auth: Any) -> None:
    application = app(service, bearer_auth=bearer_auth, origins=AllowedOrigins(MERCHANTS))
    service.ready = False  # a preflight is answered at any time
    for path, operations in (await fetch_document())["paths"].items():
        action = {"path": path.replace("{payment_id}", ID), "method": "OPTIONS"}
        for origin in (SHOP, STALL):
            response = await send(application, action, origin=origin, **PREFLIGHT)
            assert (response.status, response.body) == (204, b"")
            assert readable_by(response) == origin
            methods = response.headers["access-control-allow-methods"].split(", ")
            assert {method.lower() for method in methods} - {"head"} == set(operations)
            assert response.headers["access-control-max-age"] == "7200"
            assert "content-length" not in response.headers
            assert "*" not in "".join(response.headers.values())


async def test_a_preflight_permits_every_request_header_of_the_api(application: CashierApp) -> None:
    response = await send(application, ACTIONS["consult"] | {"method": "OPTIONS"}, origin=SHOP, **PREFLIGHT)
    permitted = set(response.headers["access-control-allow-headers"].lower().split(", "))
    names = {
        parameter["name"].lower()
        for path in (await fetch_document())["paths"].values()
        for operation in path.values()
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "header"
    }
    assert permitted == names | {"authorization", "content-type"}


@pytest.mark.parametrize("origin", [FOREIGN, "null", ""])
async def test_a_preflight_of_an_unknown_origin_is_refused(application: CashierApp, origin: str) -> None:
    response = await send(application, ACTIONS["consult"] | {"method": "OPTIONS"}, origin=origin, **PREFLIGHT)
    assert response.problem() == (403, "ORIGIN_NOT_ALLOWED")
    assert readable_by(response) is None
    assert not any(name.startswith("access-control") for name in response.headers)


async def test_options_that_are_no_preflight_are_an_ordinary_method(application: CashierApp) -> None:
    action = ACTIONS["consult"] | {"method": "OPTIONS"}
    assert (await send(application, action, origin=SHOP)).problem() == (405, "METHOD_NOT_ALLOWED")
    assert (await send(application, action, **PREFLIGHT)).problem() == (405, "METHOD_NOT_ALLOWED")
    response = await send(application, {"path": "/nothing", "method": "OPTIONS"}, origin=SHOP, **PREFLIGHT)
    assert response.problem() == (404, "NOT_FOUND")
    assert readable_by(response) == SHOP


async def test_a_mounted_application_answers_preflights(application: CashierApp) -> None:
    mounted = Starlette(routes=[Mount("/pay", app=application)])
    for path in ("/pay/v1/consult", "/pay/v1/payments"):
        response = await send(mounted, {"path": path, "method": "OPTIONS"}, origin=SHOP, **PREFLIGHT)
        assert (response.status, response.headers["access-control-allow-methods"]) == (204, "POST")


@EACH_ACTION
async def test_without_configured_origins_pages_are_left_to_a_gateway(
    service: FakeService, action: dict[str, Any]
) -> None:
    for origins in (None, AllowedOrigins({"m_1": MerchantSettings()})):
        assert isinstance(service.payments, FakePayments)
        service.payments.publish(PAID, None)
        response = await send(app(service, origins=origins), action, origin=FOREIGN)
        assert response.status in (200, 202)
        assert "vary" not in response.headers
        assert readable_by(response) is None
    preflight = await send(app(service), action | {"method": "OPTIONS"}, origin=SHOP, **PREFLIGHT)
    assert preflight.status == 405


async def test_a_replaced_list_takes_effect_with_the_next_request(service: FakeService) -> None:
    origins = AllowedOrigins(MERCHANTS)
    application = app(service, origins=origins)
    assert (await send(application, ACTIONS["consult"], origin=FOREIGN)).status == 403
    origins.replace({"m_1": MerchantSettings((FOREIGN,))})
    assert (await send(application, ACTIONS["consult"], origin=FOREIGN)).status == 200
    assert (await send(application, ACTIONS["consult"], origin=SHOP)).status == 403


def from_page(origin: str, body: bytes = BODY) -> bytes:
    head = f"POST /v1/consult HTTP/1.1\r\nHost: pay\r\nOrigin: {origin}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_the_fast_path_answers_pages_too(application: CashierApp, service: FakeService) -> None:
    client = VirtualServer(service, application=application).connect()
    allowed = await client.exchange(from_page(SHOP))
    assert allowed.startswith(b"HTTP/1.1 200 ")
    assert b"\r\naccess-control-allow-origin: https://shop.example\r\n" in allowed
    other = await client.exchange(from_page(STALL))
    assert other.startswith(b"HTTP/1.1 403 ")
    assert b"\r\naccess-control-allow-origin: http://localhost:3000\r\n" in other
    foreign = await client.exchange(from_page(FOREIGN))
    assert foreign.startswith(b"HTTP/1.1 403 ")
    assert b"access-control" not in foreign
    invalid = await client.exchange(from_page(SHOP, b"{}"))
    assert invalid.startswith(b"HTTP/1.1 422 ")
    assert b"\r\naccess-control-allow-origin: https://shop.example\r\n" in invalid
    assert len(service.calls) == 1


async def test_refusals_under_overload_can_be_read_and_preflights_pass(service: FakeService) -> None:
    application = app(service, ladder=RecordingLadder(ABOVE_HIGHEST), origins=AllowedOrigins(MERCHANTS))
    client = VirtualServer(service, application=application).connect()
    for data in (from_page(SHOP), from_page(SHOP).replace(b"Host: pay\r\n", b"Host: pay\r\nExpect: \r\n")):
        refusal = await client.exchange(data)
        assert refusal.startswith(b"HTTP/1.1 503 ")
        assert b"\r\naccess-control-allow-origin: https://shop.example\r\n" in refusal
        assert b"\r\nvary: Origin\r\n" in refusal
    assert b"access-control" not in await client.exchange(from_page(FOREIGN))
    preflight = f"OPTIONS /v1/consult HTTP/1.1\r\nHost: pay\r\nOrigin: {SHOP}\r\n"
    preflight += "Access-Control-Request-Method: POST\r\n\r\n"
    answer = await client.exchange(preflight.encode())
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"content-length" not in answer
    assert b"transfer-encoding" not in answer
    assert service.calls == []


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.example",
        "https://shop.example:8443",
        "https://a.b-c.shop.example",
        "https://xn--fiqs8s.example",
        "https://203.0.113.7",
        "https://[2001:db8::7]:8443",
        "http://localhost",
        "http://localhost:3000",
        "http://shop.localhost:3000",
        "http://127.0.0.1:8080",
        "http://127.9.9.9",
        "http://[::1]:3000",
        "https://localhost",
    ],
)
def test_a_good_origin_is_accepted(origin: str) -> None:
    assert list(origin_faults({"m_1": MerchantSettings((origin,))})) == []


@pytest.mark.parametrize(
    ("origin", "fault"),
    [
        ("https://shop.example/", "is no origin"),
        ("https://shop.example/pay", "is no origin"),
        ("https://shop.example?x=1", "is no origin"),
        ("https://shop.example#x", "is no origin"),
        ("https://user@shop.example", "is no origin"),
        ("https://*.shop.example", "is no origin"),
        ("https://", "is no origin"),
        ("https://.example", "is no origin"),
        ("https://shop..example", "is no origin"),
        ("https://Shop.example", "is no origin"),
        ("HTTPS://shop.example", "is no origin"),
        ("https://商店.example", "is no origin"),
        ("https://shop.example:", "is no origin"),
        ("https://shop.example:0", "is no origin"),
        ("https://shop.example:080", "is no origin"),
        ("https://shop.example:x", "is no origin"),
        ("https://shop.example ", "is no origin"),
        ("https://shop.example\n", "is no origin"),
        ("https://shop.example, https://x.example", "is no origin"),
        ("https:shop.example", "is no origin"),
        ("//shop.example", "is no origin"),
        ("shop.example", "is no origin"),
        ("ftp://shop.example", "is no origin"),
        ("file://", "is no origin"),
        ("chrome-extension://abc", "is no origin"),
        ("null", "is no origin"),
        ("*", "is no origin"),
        ("", "is no origin"),
        ("https://shop.example:443", "remove :443"),
        ("http://localhost:80", "remove :80"),
        ("https://shop.example:65536", "above 65535"),
        ("http://shop.example", "use https"),
        ("http://10.0.0.1:3000", "use https"),
        ("http://localhost.example", "use https"),
        ("http://127.0.0.1.example", "use https"),
        ("http://notlocalhost", "use https"),
        ("http://[::2]", "use https"),
    ],
)
def test_a_bad_origin_stops_the_start_with_its_key(origin: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configuration({"merchants": {"m_1": {"origins": [SHOP, origin]}}}, "cashier.toml")
    (text,) = caught.value.faults
    assert text.startswith(f'cashier.toml: [merchants.m_1] origins: "{origin}" ')
    assert fault in text


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"m_1": {"origin": SHOP}}, "did you mean 'origins'?"),
        ({"m_1": {"origins": SHOP}}, "origins: expected a list, got a text"),
        ({"m_1": {"origins": [1]}}, "origins[0]: expected a text, got an integer"),
        ({"*": {"origins": [SHOP]}}, '[merchants] "*" is no merchant_id'),
        ({"m 1": {"origins": [SHOP]}}, '[merchants] "m 1" is no merchant_id'),
        ([SHOP], "merchants: expected a table, got a list"),
    ],
)
def test_a_wrong_table_stops_the_start(table: Any, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configuration({"merchants": table}, "cashier.toml")
    assert fault in "\n".join(caught.value.faults)
