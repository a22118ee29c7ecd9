"""A service and a sandbox as real processes with real sockets: every case, every fault."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]  # it has no types

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.domain.order import Blocked
from cashier.sandbox import CASES, Fault
from cashier.tokens.token_service import TokenService
from tests.support.command_processes import Command, configured, eventually, running
from tests.support.process_files import open_sockets

FAULTS = [fault.value for fault in Fault]
REQUIRED = ("order", "merchant", "member")
GATING = ("card", "balance", "channel", "quota")
WITHOUT_IDENTITY = ("channel", "wrong_identity")  # a list of channels names no user or order


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


@pytest.fixture(scope="module")
def running_service(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Command, str]]:
    with running("serve", "--config", str(configured(tmp_path_factory.mktemp("service"), sandbox))) as command:
        yield command, command.address("Serving on")


@pytest.fixture(scope="module")
def service(running_service: tuple[Command, str]) -> str:
    return running_service[1]


@pytest.fixture
def weather(sandbox: str) -> Iterator[Any]:
    """Sets one source's weather, and restores all afterwards."""

    def change(source: str, profile: dict[str, Any]) -> None:
        assert exchange("PUT", f"{sandbox}/weather/{source}", profile)[0] == 200

    yield change
    assert exchange("DELETE", f"{sandbox}/weather")[0] == 200


def exchange(method: str, url: str, document: object = None) -> tuple[int, Any]:
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def consult(service: str, case: str, **other: Any) -> tuple[int, Any]:
    return exchange("POST", f"{service}/v1/consult", {**CASES[case].request, **other})


@pytest.fixture(scope="module")
def document(service: str) -> Any:
    return exchange("GET", f"{service}/openapi.json")[1]


def assert_matches_schema(document: Any, status: int, answer: Any) -> None:
    content = document["paths"]["/v1/consult"]["post"]["responses"][str(status)]["content"]
    (schema,) = (part["schema"] for media_type, part in content.items() if media_type != "text/event-stream")
    Draft202012Validator({**schema, "components": document["components"]}, format_checker=FormatChecker()).validate(
        answer
    )


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_answered_as_the_openapi_document_says(service: str, document: Any, case: str) -> None:
    status, answer = consult(service, case)
    assert status == (404 if case == "order_unknown" else 200)
    assert_matches_schema(document, status, answer)
    if case.upper() in set(Blocked):
        assert answer["blocked"]["code"] == case.upper()
    elif status == 200:
        assert answer["methods"]
        assert not answer["degraded"]


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name in SOURCE_NAMES for fault in FAULTS if (name, fault) != WITHOUT_IDENTITY]
)
def test_every_fault_of_every_source_degrades_as_specified(
    service: str, document: Any, weather: Any, name: str, fault: str
) -> None:
    weather(name, {"faults": {fault: 10_000}})
    # These two last to the deadline, the other faults end long before it.
    status, answer = consult(service, "chinese_shop", deadline_ms=250 if fault in ("hang", "slow_body") else 2_500)
    assert_matches_schema(document, status, answer)
    if status == 503:
        assert name in REQUIRED
        assert (
            answer["code"],
            {source["name"]: source["status"] for source in answer["sources"]}[name] == "FRESH",
        ) == (
            "REQUIRED_SOURCE_UNAVAILABLE",
            False,
        )
        return
    reported = {source["name"]: source["status"] for source in answer["sources"]}[name]
    if fault == "slow_body" and reported == "FRESH":
        return  # the pieces arrived in time
    assert name not in REQUIRED
    assert reported == expected_status(fault)
    assert answer["degraded"]
    assert name not in GATING or all(method["reason"]["source"] == name for method in undetermined(answer))
    assert bool(undetermined(answer)) == (name in GATING)


def expected_status(fault: str) -> str:
    return {"hang": "TIMEOUT", "slow_body": "TIMEOUT", "garbage": "GARBLED", "wrong_identity": "WRONG_IDENTITY"}.get(
        fault, "ERROR"
    )


def undetermined(answer: Any) -> list[Any]:
    return [method for method in answer["methods"] if method["availability"] == "UNDETERMINED"]


def test_a_consult_token_holds_the_offer(service: str) -> None:
    _, answer = consult(service, "chinese_shop")
    claims = TokenService(["t" * 32]).read_consult_token(answer["consult_token"])
    offered = {row.id: (row.payable, row.fee) for row in claims.methods}
    assert offered == {
        method["method_id"]: (method["amount"]["payable"]["value"], method["amount"]["fee"]["value"])
        for method in answer["methods"]
        if method["availability"] != "UNAVAILABLE"
    }
    assert (claims.order_id, claims.user_id, claims.amount, claims.currency) == ("o_1001", "u_1", 12_800, "CNY")


def test_faults_leave_no_connection_behind(running_service: tuple[Command, str], weather: Any) -> None:
    command, service = running_service
    consult(service, "chinese_shop")
    before = open_sockets(command.process.pid)
    for fault in ("hang", "reset", "truncate", "garbage"):
        weather("quota", {"faults": {fault: 10_000}})
        for _ in range(10):
            consult(service, "chinese_shop", deadline_ms=40)
    weather("quota", {})
    consult(service, "chinese_shop")
    eventually(
        lambda: open_sockets(command.process.pid) <= before + 2,
        "abandoned calls run on for more than twice their timeout",
    )


def test_no_answer_names_a_card_by_more_than_its_last_four_digits(service: str) -> None:
    _, answer = consult(service, "chinese_shop")
    assert all(
        len(method["instrument"]["last4"]) == 4
        for method in answer["methods"]
        if (method["instrument"] or {}).get("last4")
    )
