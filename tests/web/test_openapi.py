"""The OpenAPI document is valid, and real responses match it."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from structlog.testing import capture_logs

from cashier import web
from cashier.consultation.answer import OrderUnknown, RequiredSourceUnavailable
from cashier.payments.errors import CheckUnavailable, InFlight, OrderBusy, RiskRejected, TooManyPayments
from cashier.tokens.jws import TokenCode, TokenRefused
from cashier.web import app
from cashier.web.auth import AuthSettings, BearerAuth
from cashier.web.endpoint_path import CONSULT_PATH
from cashier.web.openapi import document_builder
from cashier.web.problem import STATUS_AND_TITLE, ProblemCode
from tests.web.asgi_client import JSON, CapturedResponse, call
from tests.web.fake_payments import BODY as BODY_OF_PAYMENT
from tests.web.fake_payments import ID, LIVE, PAID, FakePayments
from tests.web.fake_service import BODY, SOURCES, FakeService

PAYMENT_PATH = "/v1/payments/{payment_id}"
BEARER_AUTH = BearerAuth(AuthSettings(mode="jwt", issuer="i", audience="a", secret="s" * 32))


async def fetch_document(bearer_auth: BearerAuth | None = None) -> dict[str, Any]:
    response = await call(
        app(FakeService(), bearer_auth=bearer_auth), b"", method="GET", path="/openapi.json", headers={}
    )
    assert response.status == 200
    document: dict[str, Any] = response.json
    return document


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    root = schema | {"components": document["components"]}
    Draft202012Validator(root, format_checker=FormatChecker()).validate(value)


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def check_response(
    document: dict[str, Any], response: CapturedResponse, path: str = "/v1/consult", method: str = "post"
) -> None:
    entry = document["paths"][path][method]["responses"][str(response.status)]
    check(document, entry["content"][response.headers["content-type"]]["schema"], response.json)
    for name, reference in entry["headers"].items():
        header = document["components"]["headers"][reference["$ref"].rsplit("/", 1)[1]]
        check(document, header["schema"], response.headers[name])


@pytest.mark.parametrize("bearer_auth", [None, BEARER_AUTH])
async def test_the_document_is_valid_openapi(bearer_auth: BearerAuth | None) -> None:
    document = await fetch_document(bearer_auth)
    assert document["openapi"].startswith("3.1")
    validate(document)


async def test_all_examples_match_their_schemas() -> None:
    document = await fetch_document(BEARER_AUTH)
    for operation in operations(document):
        content = operation.get("requestBody", {"content": {}})["content"].get("application/json")
        if content is not None:
            check(document, content["schema"], content["example"])
        for status, entry in operation["responses"].items():
            for part in entry["content"].values():
                for example in (
                    [part["example"]]
                    if "example" in part
                    else [named["value"] for named in part.get("examples", {}).values()]
                ):
                    check(document, part["schema"], example)
                    assert status < "300" or example["status"] == int(status)
                    assert status < "300" or STATUS_AND_TITLE[example["code"]][0] == int(status)


async def test_the_request_example_is_answered() -> None:
    document = await fetch_document()
    example = document["paths"]["/v1/consult"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert (await call(app(FakeService()), json.dumps(example).encode())).status == 200


async def test_real_responses_match_the_document() -> None:
    document = await fetch_document(BEARER_AUTH)
    service = FakeService()
    application = app(service, body_limit_bytes=1000)
    answers = [
        await call(application),
        await call(application, b"{"),
        await call(application, b"{}"),
        await call(application, b" " * 1001),
        await call(application, headers={"content-type": "text/plain"}),
        await call(app(service, bearer_auth=BEARER_AUTH)),
    ]
    for service.raises in (OrderUnknown("o_1"), RequiredSourceUnavailable(SOURCES, ("order",)), ZeroDivisionError()):
        answers.append(await call(application, headers=JSON))
    assert [response.status for response in answers] == [200, 400, 422, 413, 415, 401, 404, 503, 500]
    for response in answers:
        check_response(document, response)


async def test_health_responses_match_the_document() -> None:
    document = await fetch_document(BEARER_AUTH)
    service = FakeService()
    application = app(service, bearer_auth=BEARER_AUTH)
    for path, sources_reached, status in (("/healthz", True, 200), ("/readyz", True, 200), ("/readyz", False, 503)):
        service.sources_reached = sources_reached
        response = await call(application, b"", method="GET", path=path, headers={})
        assert response.status == status
        check_response(document, response, path, "get")


async def test_the_schema_and_the_endpoint_refuse_the_same_bodies() -> None:
    document = await fetch_document()
    schema = document["paths"]["/v1/consult"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for changes in (
        {"order_id": "o_1\n"},
        {"amount": {"currency": "XTS", "value": 1}},
        {"terminal": "TV"},
        {"deadline_ms": 0},
    ):
        body = json.loads(BODY) | changes
        assert (await call(app(FakeService()), json.dumps(body).encode())).status == 422
        with pytest.raises(ValidationError):
            check(document, schema, body)


def test_the_readme_lists_every_problem_with_its_status() -> None:
    readme = (Path(web.__file__).parent / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| `([A-Z_]+)` \| (\d{3}) \|", readme, re.MULTILINE)
    assert {code: int(status) for code, status in listed} == {
        code.value: status for code, (status, _) in STATUS_AND_TITLE.items()
    }


async def test_the_readme_names_every_field_and_value_of_the_document() -> None:
    words = set(re.findall(r"\w+", (Path(web.__file__).parent / "README.md").read_text("utf-8")))
    schemas = (await fetch_document())["components"]["schemas"]
    del schemas["Money"]  # has all currencies
    for schema in schemas.values():
        assert set(schema.get("properties", ())) | set(schema.get("enum", ())) <= words


async def test_every_endpoint_is_documented() -> None:
    endpoints = app(FakeService())._other_endpoints.routes
    documented = list((await fetch_document())["paths"])
    assert sorted(documented) == sorted([CONSULT_PATH, *(getattr(endpoint, "path", "") for endpoint in endpoints)])


@pytest.mark.parametrize("bearer_auth", [None, BEARER_AUTH])
async def test_every_path_answers_other_methods_as_documented(bearer_auth: BearerAuth | None) -> None:
    document = await fetch_document(bearer_auth)
    application = app(FakeService(FakePayments()), bearer_auth=bearer_auth)
    for path, methods in document["paths"].items():
        for method in {"get", "post", "put", "delete", "patch"} - set(methods):
            response = await call(application, method=method.upper(), path=path.replace("{payment_id}", ID))
            assert response.problem() == (405, "METHOD_NOT_ALLOWED")
            assert set(response.headers["allow"].lower().split(", ")) - {"head"} == set(methods)
            for documented in methods:
                check_response(document, response, path, documented)


async def test_every_problem_is_documented_but_that_of_a_head_over_its_limit() -> None:
    contents = [
        entry["content"].get("application/problem+json", {})
        for operation in operations(await fetch_document(BEARER_AUTH))
        for entry in operation["responses"].values()
    ]
    documented = {code for content in contents for code in content.get("examples", ())}
    assert set(ProblemCode) - documented == {ProblemCode.HEADERS_TOO_LARGE}


PACKAGED = resources.files("cashier.web.openapi")


def strings(part: Any) -> Iterator[str]:
    match part:
        case str():
            yield part
        case list():
            for item in part:
                yield from strings(item)
        case dict():
            for key, value in part.items():
                yield key
                yield from strings(value)


def test_the_data_of_the_document_has_nothing_unused() -> None:
    """Each name occurs where it is defined and where it is used."""
    data = tomllib.loads(PACKAGED.joinpath("operations.toml").read_text("utf-8"))
    names = Counter(strings(data))
    for kind in ("parameters", "events"):
        assert [name for name in data[kind] if names[name] < 2] == []
    examples = json.loads(PACKAGED.joinpath("examples.json").read_text("utf-8"))
    of_problems = ["change", "silent_source"]
    assert [name for name in examples if names[name] < 1] == of_problems
    assert [group for group in document_builder._PROBLEM_GROUPS if names[group] < 1] == []
    used_values = set(re.findall(r"\$\{(\w+)\}", "".join(strings(data))))
    assert used_values == set(document_builder._values(1, secured=True))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("operations.toml", 'summary = "This doc', 'sumary = "This doc', "get /openapi.json: .*unknown field `sumary`"),
        ("operations.toml", 'operation_id = "pay"\n', "", "post /v1/payments: .*missing required field `operation_id`"),
        ("operations.toml", "[parameters.wait_ms]", "[parameters.wait]", "no parameter is named 'wait_ms'"),
        ("operations.toml", '"own", "any", "consult"', '"own", "any", "consul"', "no group of problems is named"),
        ("operations.toml", 'schema = "Invalidated"', 'schema = "Invalid"', "no schema is named 'Invalid'"),
        ("operations.toml", 'example = "consultation"', 'example = "consult"', "no example is named 'consult'"),
        ("operations.toml", 'events = "payment"', 'events = "payments"', "no stream is named 'payments'"),
        ("operations.toml", '["retry-after"]', '["retry"]', "no header is named 'retry'"),
        ("operations.toml", "www-authenticate = ", "authenticate = ", "no header is named 'www-authenticate'"),
        ("operations.toml", "${heartbeat_s}", "${heartbeat}", "no value is named 'heartbeat'"),
        ("examples.json", '"rank": 1', '"rnk": 1', "examples.json: consultation: .*missing required field `rank`"),
        ("examples.json", '"health": "UP"', '"health": "U"', "examples.json: consultation: .*at `.*health`"),
        ("examples.json", '"device_id"', '"deviceid"', "examples.json: payment_request: not as PaymentRequest"),
        ("examples.json", '"bank_name"', '"bankname"', "examples.json: consultation: not as Consultation"),
        ("examples.json", '"silent_source"', '"silent"', "no example is named 'silent_source'"),
    ],
)  # fmt: skip
def test_a_wrong_name_in_the_data_fails_when_the_document_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, message: str
) -> None:
    for name in ("operations.toml", "examples.json"):
        shutil.copy(str(PACKAGED.joinpath(name)), tmp_path)
    original = (tmp_path / file).read_text("utf-8")
    assert old in original
    (tmp_path / file).write_text(original.replace(old, new), "utf-8")
    monkeypatch.setattr(document_builder, "resources", SimpleNamespace(files=lambda _: tmp_path))
    with pytest.raises(ValueError, match=message):
        document_builder.document(1000, secured=True)


async def test_security_is_documented_only_with_authentication() -> None:
    for path in ("/v1/consult", "/v1/payments", f"{PAYMENT_PATH}/cancel", f"{PAYMENT_PATH}/challenge"):
        assert "security" not in (await fetch_document())["paths"][path]["post"]
        scope = "consult" if path == "/v1/consult" else "pay"
        assert (await fetch_document(BEARER_AUTH))["paths"][path]["post"]["security"] == [{"bearer": [scope]}]
    for path, security in (
        (PAYMENT_PATH, [{"bearer": ["pay"]}]),
        (f"{PAYMENT_PATH}/events", [{"bearer": ["pay"]}, {}]),
    ):
        assert (await fetch_document(BEARER_AUTH))["paths"][path]["get"]["security"] == security
    examples = [
        entry["content"].get("application/problem+json", {}).get("examples", {})
        for operation in operations(await fetch_document())
        for entry in operation["responses"].values()
    ]
    assert not any("CALLER_MISMATCH" in named for named in examples)


async def test_the_payment_examples_are_accepted() -> None:
    paths = (await fetch_document())["paths"]
    application = app(FakeService(FakePayments()))
    for path, headers in (
        ("/v1/payments", {"idempotency-key": "k-1"}),
        (f"{PAYMENT_PATH}/challenge", {}),
        (f"{PAYMENT_PATH}/cancel", {}),
    ):
        example = paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]
        real = path.replace(
            "{payment_id}",
            paths["/v1/payments"]["post"]["responses"]["200"]["content"]["application/json"]["example"]["payment_id"],
        )
        assert (await call(application, json.dumps(example).encode(), headers=JSON | headers, path=real)).status == 202


@pytest.mark.parametrize("code", get_args(TokenCode))
async def test_every_token_problem_is_documented(code: TokenCode) -> None:
    responses = [operation["responses"].get("403", {"content": {}}) for operation in operations(await fetch_document())]
    assert any(
        code in response["content"].get("application/problem+json", {"examples": {}})["examples"]
        for response in responses
    )


@pytest.mark.parametrize("bearer_auth", [None, BEARER_AUTH])
async def test_real_payment_responses_match_the_document(bearer_auth: BearerAuth | None) -> None:
    document = await fetch_document(BEARER_AUTH)
    payments = FakePayments()
    application = app(FakeService(payments), bearer_auth=bearer_auth)
    headers = JSON | {"idempotency-key": "k-1", "x-payment-token": "t"}
    challenge_answer = json.dumps({"payment_token": "t", "value": "1"}).encode()
    errors = (
        CheckUnavailable(("risk",), SOURCES),
        OrderBusy("pay_x"),
        InFlight(),
        RiskRejected(None),
        TokenRefused("TOKEN_EXPIRED"),
    )
    for payments.outcome in (LIVE, PAID, *errors, ZeroDivisionError(), TooManyPayments()):
        with capture_logs():
            for path, method, body in (
                ("/v1/payments", "post", BODY_OF_PAYMENT),
                (f"{PAYMENT_PATH}/challenge", "post", challenge_answer),
                (PAYMENT_PATH, "get", b""),
                ("/v1/payments", "post", b"{}"),
                ("/v1/payments", "post", b"{"),
            ):
                response = await call(
                    application, body, headers=headers, method=method.upper(), path=path.replace("{payment_id}", ID)
                )
                if str(response.status) in document["paths"][path][method]["responses"]:
                    check_response(document, response, path, method)
                else:
                    assert isinstance(payments.outcome, CheckUnavailable | OrderBusy | InFlight | RiskRejected), (
                        "a query never gets this problem"
                    )
                    assert method == "get"
