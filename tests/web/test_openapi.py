"""The document describes what the door does: it is valid, and real answers are valid by it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError  # type: ignore[import-untyped] # it has no types
from openapi_spec_validator import validate

from cashier.consult import OrderUnknown, RequiredSourceUnavailable
from cashier.web import app
from cashier.web.auth import AuthSettings, Doorkeeper

from .calling import JSON, Got, call
from .offers import BODY, SOURCES, FakeEngine

DOORKEEPER = Doorkeeper(AuthSettings(mode="jwt", issuer="i", audience="a", secret="s" * 32))


async def described(doorkeeper: Doorkeeper | None = None) -> dict[str, Any]:
    got = await call(app(FakeEngine(), doorkeeper=doorkeeper), b"", method="GET", path="/openapi.json", headers={})
    assert got.status == 200
    document: dict[str, Any] = got.json
    return document


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = schema | {"components": document["components"]}
    Draft202012Validator(whole, format_checker=FormatChecker()).validate(value)


def check_answer(document: dict[str, Any], got: Got) -> None:
    entry = document["paths"]["/v1/consult"]["post"]["responses"][str(got.status)]
    check(document, entry["content"][got.headers["content-type"]]["schema"], got.json)
    for name, reference in entry["headers"].items():
        header = document["components"]["headers"][reference["$ref"].rsplit("/", 1)[1]]
        check(document, header["schema"], got.headers[name])


@pytest.mark.parametrize("doorkeeper", [None, DOORKEEPER])
async def test_the_document_is_valid_openapi(doorkeeper: Doorkeeper | None) -> None:
    document = await described(doorkeeper)
    assert document["openapi"].startswith("3.1")
    validate(document)


async def test_its_examples_are_valid_by_its_schemas() -> None:
    document = await described(DOORKEEPER)
    operation = document["paths"]["/v1/consult"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    check(document, content["schema"], content["example"])
    for status, entry in operation["responses"].items():
        for part in entry["content"].values():
            for example in [part["example"]] if "example" in part else [each["value"] for each in part["examples"].values()]:
                check(document, part["schema"], example)
                assert status == "200" or example["status"] == int(status)


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
        await call(app(engine, doorkeeper=DOORKEEPER)),
    ]
    for engine.raises in (OrderUnknown("o_1"), RequiredSourceUnavailable(SOURCES, ("order",)), ZeroDivisionError()):
        answers.append(await call(door, headers=JSON))
    assert [got.status for got in answers] == [200, 400, 422, 413, 415, 401, 404, 503, 500]
    for got in answers:
        check_answer(document, got)


async def test_the_schema_refuses_what_the_door_refuses() -> None:
    document = await described()
    schema = document["paths"]["/v1/consult"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for changes in ({"order_id": "o_1\n"}, {"amount": {"currency": "XTS", "value": 1}}, {"terminal": "TV"}, {"deadline_ms": 0}):
        body = json.loads(BODY) | changes
        assert (await call(app(FakeEngine()), json.dumps(body).encode())).status == 422
        with pytest.raises(ValidationError):
            check(document, schema, body)


async def test_security_is_in_it_only_where_there_is_some() -> None:
    assert "security" not in (await described())["paths"]["/v1/consult"]["post"]
    assert (await described(DOORKEEPER))["paths"]["/v1/consult"]["post"]["security"] == [{"bearer": []}]
