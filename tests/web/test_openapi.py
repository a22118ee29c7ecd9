"""The document describes what the door does: it is valid, and real answers are valid by it."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError  # type: ignore[import-untyped] # it has no types
from openapi_spec_validator import validate
from structlog.testing import capture_logs

from cashier.consultation.flow import OrderUnknown, RequiredSourceUnavailable
from cashier.payments.errors import CheckUnavailable, InFlight, OrderBusy, RiskRejected, TooManyPayments
from cashier.tokens.jws import TokenCode, TokenRefused
from cashier.web import app
from cashier.web.auth import AuthSettings, BearerAuth
from cashier.web.problem import STATUS_AND_TITLE

from .calling import JSON, Got, call
from .offers import BODY, SOURCES, FakeEngine
from .payments import BODY as BODY_OF_PAYMENT
from .payments import ID, LIVE, PAID, FakePayments

ONE = "/v1/payments/{payment_id}"
DOORKEEPER = BearerAuth(AuthSettings(mode="jwt", issuer="i", audience="a", secret="s" * 32))


async def described(doorkeeper: BearerAuth | None = None) -> dict[str, Any]:
    got = await call(app(FakeEngine(), bearer_auth=doorkeeper), b"", method="GET", path="/openapi.json", headers={})
    assert got.status == 200
    document: dict[str, Any] = got.json
    return document


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = schema | {"components": document["components"]}
    Draft202012Validator(whole, format_checker=FormatChecker()).validate(value)


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def check_answer(document: dict[str, Any], got: Got, path: str = "/v1/consult", method: str = "post") -> None:
    entry = document["paths"][path][method]["responses"][str(got.status)]
    check(document, entry["content"][got.headers["content-type"]]["schema"], got.json)
    for name, reference in entry["headers"].items():
        header = document["components"]["headers"][reference["$ref"].rsplit("/", 1)[1]]
        check(document, header["schema"], got.headers[name])


@pytest.mark.parametrize("doorkeeper", [None, DOORKEEPER])
async def test_the_document_is_valid_openapi(doorkeeper: BearerAuth | None) -> None:
    document = await described(doorkeeper)
    assert document["openapi"].startswith("3.1")
    validate(document)


async def test_its_examples_are_valid_by_its_schemas() -> None:
    document = await described(DOORKEEPER)
    for operation in operations(document):
        content = operation.get("requestBody", {"content": {}})["content"].get("application/json")
        if content is not None:
            check(document, content["schema"], content["example"])
        for status, entry in operation["responses"].items():
            for part in entry["content"].values():
                for example in (
                    [part["example"]]
                    if "example" in part
                    else [each["value"] for each in part.get("examples", {}).values()]
                ):
                    check(document, part["schema"], example)
                    assert status < "300" or example["status"] == int(status)
                    assert status < "300" or STATUS_AND_TITLE[example["code"]][0] == int(status)


async def test_its_request_example_is_answered() -> None:
    document = await described()
    example = document["paths"]["/v1/consult"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert (await call(app(FakeEngine()), json.dumps(example).encode())).status == 200


async def test_real_answers_are_valid_by_it() -> None:
    document = await described(DOORKEEPER)
    engine = FakeEngine()
    door = app(engine, body_limit_bytes=1000)
    answers = [
        await call(door),
        await call(door, b"{"),
        await call(door, b"{}"),
        await call(door, b" " * 1001),
        await call(door, headers={"content-type": "text/plain"}),
        await call(app(engine, bearer_auth=DOORKEEPER)),
    ]
    for engine.raises in (OrderUnknown("o_1"), RequiredSourceUnavailable(SOURCES, ("order",)), ZeroDivisionError()):
        answers.append(await call(door, headers=JSON))
    assert [got.status for got in answers] == [200, 400, 422, 413, 415, 401, 404, 503, 500]
    for got in answers:
        check_answer(document, got)


async def test_the_schema_refuses_what_the_door_refuses() -> None:
    document = await described()
    schema = document["paths"]["/v1/consult"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for changes in (
        {"order_id": "o_1\n"},
        {"amount": {"currency": "XTS", "value": 1}},
        {"terminal": "TV"},
        {"deadline_ms": 0},
    ):
        body = json.loads(BODY) | changes
        assert (await call(app(FakeEngine()), json.dumps(body).encode())).status == 422
        with pytest.raises(ValidationError):
            check(document, schema, body)


async def test_security_is_in_it_only_where_there_is_some() -> None:
    for path in ("/v1/consult", "/v1/payments", f"{ONE}/cancel", f"{ONE}/challenge"):
        assert "security" not in (await described())["paths"][path]["post"]
        assert (await described(DOORKEEPER))["paths"][path]["post"]["security"] == [{"bearer": []}]
    for path in (ONE, f"{ONE}/events"):
        assert (await described(DOORKEEPER))["paths"][path]["get"]["security"] == [{"bearer": []}]


async def test_its_examples_of_payments_are_taken() -> None:
    paths = (await described())["paths"]
    door = app(FakeEngine(FakePayments()))
    for path, headers in (
        ("/v1/payments", {"idempotency-key": "k-1"}),
        (f"{ONE}/challenge", {}),
        (f"{ONE}/cancel", {}),
    ):
        example = paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]
        real = path.replace(
            "{payment_id}",
            paths["/v1/payments"]["post"]["responses"]["200"]["content"]["application/json"]["example"]["payment_id"],
        )
        assert (await call(door, json.dumps(example).encode(), headers=JSON | headers, path=real)).status == 202


@pytest.mark.parametrize("code", get_args(TokenCode))
async def test_every_refusal_of_a_token_is_in_the_document(code: TokenCode) -> None:
    responses = [each["responses"].get("403", {"content": {}}) for each in operations(await described())]
    assert any(
        code in each["content"].get("application/problem+json", {"examples": {}})["examples"] for each in responses
    )


@pytest.mark.parametrize("doorkeeper", [None, DOORKEEPER])
async def test_real_answers_about_payments_are_valid_by_it(doorkeeper: BearerAuth | None) -> None:
    document = await described(DOORKEEPER)
    payments = FakePayments()
    door = app(FakeEngine(payments), bearer_auth=doorkeeper)
    headers = JSON | {"idempotency-key": "k-1", "x-payment-token": "t"}
    told = json.dumps({"payment_token": "t", "value": "1"}).encode()
    errors = (
        CheckUnavailable(("risk",), SOURCES),
        OrderBusy("pay_x"),
        InFlight(),
        RiskRejected(None),
        TokenRefused("TOKEN_EXPIRED"),
    )
    for payments.told in (LIVE, PAID, *errors, ZeroDivisionError(), TooManyPayments()):
        with capture_logs():
            for path, method, body in (
                ("/v1/payments", "post", BODY_OF_PAYMENT),
                (f"{ONE}/challenge", "post", told),
                (ONE, "get", b""),
                ("/v1/payments", "post", b"{}"),
                ("/v1/payments", "post", b"{"),
            ):
                got = await call(
                    door, body, headers=headers, method=method.upper(), path=path.replace("{payment_id}", ID)
                )
                if str(got.status) in document["paths"][path][method]["responses"]:
                    check_answer(document, got, path, method)
                else:
                    assert isinstance(payments.told, CheckUnavailable | OrderBusy | InFlight | RiskRejected), (
                        "a look gets no such answer"
                    )
                    assert method == "get"
