"""The sandbox answers what the document of the contract says. They share no code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cashier.cli.contract_command import SERVED
from cashier.contract import OPERATIONS, Operation
from cashier.contract.document import document
from cashier.contract.examples import examples
from cashier.sandbox import SOURCES, World, create_app, serve, weather_named
from cashier.sandbox.source_table import SOURCE_READS

DOCUMENT = document()
EXAMPLES = examples()
MONEY = {"currency": "CNY", "value": 12_800}
KNOWN = {
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "currency": "CNY",
    "country": "CN",
    "value": "12800",
}
UNKNOWN = {"order_id": "o_404", "user_id": "u_404", "merchant_id": "m_404"}
READS = [each for each in OPERATIONS if each.method == "GET" and each.source != "engine"]


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    served = serve(port=0, world=World(), weather=weather_named("still"), documents=SERVED)
    async with served as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


def check(path: str, method: str, status: int, body: Any) -> None:
    """The answer has a documented status, and its body is of the schema."""
    answers = DOCUMENT["paths"][path][method]["responses"]
    assert str(status) in answers, f"{method} {path} answered {status}: {body}"
    if content := answers[str(status)].get("content"):
        schema = content["application/json"]["schema"] | {"components": DOCUMENT["components"]}
        Draft202012Validator(schema, format_checker=FormatChecker()).validate(body)


def test_the_sandbox_has_the_sources_and_the_batch_paths_of_the_document() -> None:
    assert SOURCES.keys() == {each.source for each in OPERATIONS}
    for name, read in SOURCE_READS.items():
        [operation] = [each for each in OPERATIONS if each.source == name]
        assert read.path == operation.path
        assert {*read.parameters, *read.checked} == {*operation.path_parameters, *operation.query}
        assert (read.batch in DOCUMENT["paths"]) is (operation.batch is not None)
    routes = {(route.method, route.resource.canonical) for route in _routes() if route.resource is not None}
    for path, methods in DOCUMENT["paths"].items():
        assert all((method.upper(), path) in routes for method in methods)


def _routes() -> Any:
    return create_app(World(), weather_named("still")).router.routes()


@pytest.mark.parametrize("operation", READS, ids=lambda operation: operation.operation_id)
async def test_each_read_answers_as_documented(client: aiohttp.ClientSession, operation: Operation) -> None:
    for values in (KNOWN, KNOWN | UNKNOWN):
        query = {name: values[name] for name in operation.query}
        async with client.get(operation.path.format(**values), params=query) as response:
            body = await response.json()
        check(operation.path, "get", response.status, body)
        known = values is KNOWN or operation.source == "channel"
        assert response.status == (200 if known else 404)
        if known:
            assert {field: body[field] for field in operation.echoes} == {
                field: values[parameter] for field, parameter in operation.echoes.items()
            }
    if operation.batch is not None:
        [path] = [path for path in DOCUMENT["paths"] if path == SOURCE_READS[operation.source].batch]
        numbers: dict[str, Any] = {"value": 12_800}
        asked = [
            {name: numbers.get(name, values[name]) for name in operation.batch} for values in (KNOWN, KNOWN | UNKNOWN)
        ]
        async with client.post(path, json={"requests": asked}) as response:
            body = await response.json()
        check(path, "post", response.status, body)
        assert [list(part) for part in body["answers"]] == [["ok"], ["error"]]


async def test_risk_and_engine_answer_as_documented(client: aiohttp.ClientSession) -> None:
    seen: set[tuple[str, int]] = set()

    async def ask(path: str, method: str, body: Any = None, key: str | None = None, **values: str) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        async with client.request(method, path.format(**values), json=body, headers=headers) as response:
            answer = await response.json()
        check(path, method, response.status, answer)
        seen.add((path, response.status))
        return answer

    inquiry = EXAMPLES["risk_decide"]["body"] | {"amount": MONEY, "instrument_id": "c_2"}
    decision = await ask("/risk/decisions", "post", inquiry)
    challenge = {"challenge_id": decision["challenge"]["challenge_id"]}
    verify, resend = "/risk/challenges/{challenge_id}/verify", "/risk/challenges/{challenge_id}/resend"
    await ask(resend, "post", {"payment_id": "pay_1"}, **challenge)
    await ask(resend, "post", {"payment_id": "pay_1"}, challenge_id="chl_404")
    await ask(verify, "post", {"payment_id": "pay_1", "value": "0"}, **challenge)
    await ask(verify, "post", {"payment_id": "pay_1", "value": "246810"}, **challenge)
    await ask(verify, "post", {"payment_id": "pay_1", "value": "246810"}, challenge_id="chl_404")
    submission = EXAMPLES["engine_submit"]["body"] | {
        "amount": MONEY,
        "legs": [
            {
                "type": "CHANNEL",
                "id": "ch_quick_cmb",
                "channel_id": "ch_quick_cmb",
                "instrument_id": "c_2",
                "amount": MONEY,
            }
        ],
        "decision_id": decision["decision_id"],
    }
    code = {"type": "CHANNEL", "id": "ch_va_bca", "channel_id": "ch_va_bca", "amount": MONEY}
    await ask("/payments/{payment_id}", "get", payment_id="pay_1")
    await ask("/payments/{payment_id}/reverse", "post", payment_id="pay_404")
    paid = await ask("/payments", "post", submission, key="pay_1")
    assert paid["status"] == "SUCCEEDED"
    await ask("/payments", "post", submission | {"fingerprint": "another"}, key="pay_1")
    await ask("/payments/{payment_id}", "get", payment_id="pay_1")
    await ask("/payments/{payment_id}/reverse", "post", {"reason": "CANCELLED"}, payment_id="pay_1")
    refused = await ask("/payments", "post", submission | {"payment_id": "pay_2", "legs": [code]}, key="pay_2")
    assert refused["status"] == "FAILED"
    assert seen == {
        (each.path, status) for each in OPERATIONS for status in each.answers if each.source in ("risk", "engine")
    } - {("/payments", 409)}


async def test_the_sandbox_serves_the_document_and_its_page(client: aiohttp.ClientSession) -> None:
    async with client.get("/openapi.json") as response:
        assert await response.json() == DOCUMENT
    async with client.get("/docs") as response:
        assert response.content_type == "text/html"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert "The upstream services of a cashier" in await response.text()


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BOUNDED = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def sandbox_url() -> Iterator[str]:
    """A sandbox on a thread of its own: schemathesis calls it synchronously."""
    bound: Future[int] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with serve(port=0, world=World(), weather=weather_named("still")) as port:
            bound.set_result(port)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    yield f"http://127.0.0.1:{bound.result(10)}"
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.mark.proof
@pytest.mark.parametrize(
    ("path", "method"), [(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods]
)
def test_the_sandbox_conforms_to_the_document_whatever_is_asked(sandbox_url: str, path: str, method: str) -> None:
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method]

    @BOUNDED
    @given(operation.as_strategy(), st.booleans())
    def check_case(case: Any, known: bool) -> None:
        if path == "/payments" and isinstance(case.body, dict):
            # A cashier submits no order that it has not read: the sandbox refuses others by a 422
            # of its own.
            case.body["order_id"] = KNOWN["order_id"]
        if known:  # ids that the sandbox has
            case.path_parameters = {
                name: KNOWN.get(name, value) for name, value in (case.path_parameters or {}).items()
            }
        case.call_and_validate(base_url=sandbox_url, checks=CHECKS)

    check_case()
