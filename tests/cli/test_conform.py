"""`cashier conform`: what it prints and writes, and its three exit statuses."""

from __future__ import annotations

import asyncio
import re
import ssl
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
from typer.testing import CliRunner, Result

from cashier.cli.commands import cli
from cashier.consultation.source_table import SOURCE_NAMES
from tests.conformance.seeded_faults import row_of
from tests.conformance.spoiled_service import Answer, Received, Spoil, spoiled_sandbox

BRIEF = ("--calls", "3", "--concurrency", "2", "--idle-s", "0", "--timeout-ms", "30000")
TEST_PAYMENT = ("--moves-money", "--order-id", "o_1001", "--user-id", "u_1", "--amount", "CNY:12800")
NO_SERVICE = "http://127.0.0.1:1"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, ["conform", *words], env={"COLUMNS": "80"})


async def conform(spoil: Spoil, *words: str, url: bool = True) -> Result:
    async with spoiled_sandbox(spoil) as address:
        words = tuple(word.replace("URL", address) for word in words)
        return await asyncio.to_thread(invoke, *((address,) if url else ()), *words, *BRIEF)


def right(received: Received, answer: Answer) -> Answer:
    return answer


WRONG_CARD = row_of("cards", last4=1014, bank=None)


async def test_a_conforming_service_ends_with_0_and_a_table_of_80_columns() -> None:
    result = await conform(right, "--source", "card", "--id", "u_1", "--id", "u_2")
    assert result.exit_code == 0, result.output
    assert "card conforms (" in result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert [line for line in result.output.splitlines() if line.endswith(" ")] == []


async def test_a_finding_has_both_sides_the_contract_and_the_cost_and_ends_with_1(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    result = await conform(WRONG_CARD, "--source", "card", "--junit", str(junit))
    assert result.exit_code == 1
    assert "card does not conform: schema" in result.output
    text = " ".join(result.output.split())
    for part in (
        "schema: cards[0].bank is missing",
        "sent GET /members/u_1/cards, X-Deadline-Ms: 1000",
        "came 200, content-type: application/json",
        "contract a JSON object in UTF-8",
        "cost every method that this source could refuse is UNDETERMINED",
    ):
        assert part in text
    [suite] = ET.parse(junit).getroot()  # noqa: S314  written by the command
    assert suite.get("failures") == "1"
    [failure] = suite.iter("failure")
    assert failure.get("message") == "cards[0].bank is missing; " + (
        "cards[0].last4 is an integer: expected `str`, got `int`"
    )
    assert failure.text is not None
    assert all(f"{side}: " in failure.text for side in ("sent", "came", "contract", "cost"))


async def test_json_has_every_rule_with_its_verdict_and_findings() -> None:
    result = await conform(WRONG_CARD, "--source", "card", "--json")
    document = orjson.loads(result.stdout_bytes)
    assert result.exit_code == 1
    assert document["conforms"] is False
    [service] = document["services"]
    verdicts = {rule["rule"]: rule["verdict"] for rule in service["results"]}
    assert verdicts["schema"] == "FAILED"
    assert verdicts["batch"] == "SKIPPED"
    assert service["latency"]["calls"] == 3


async def test_no_output_has_a_value_of_a_payer_or_the_secret_of_a_header(tmp_path: Path) -> None:
    def guarded(received: Received, answer: Answer) -> Answer:
        known = received.headers.get("Authorization") == "Bearer s3cr3t-token"
        return WRONG_CARD(received, answer) if known else answer.put({"code": "WHO"}, 401)

    junit = tmp_path / "junit.xml"
    header = ("--header", "Authorization: Bearer s3cr3t-token")
    shown = await conform(guarded, "--source", "card", "--junit", str(junit), *header)
    as_json = await conform(guarded, "--source", "card", "--json", *header)
    assert "cards[0].bank is missing" in shown.output
    for text in (shown.output, as_json.output, junit.read_text("utf-8")):
        assert "Authorization: …" in " ".join(text.split())
        # Whole words: the digits of a card are at times a part of a port or of a duration.
        words = re.findall(r"\w+(?:\.\d+)?", text)
        assert not {"s3cr3t", "1014", "6222", "CMB", "ag_1", "2031"} & set(words)


async def test_all_examines_what_a_configuration_joins_also_with_credentials_and_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BALANCE_TOKEN", "t0ken-of-balance")

    def spoil(received: Received, answer: Answer) -> Answer:
        known = received.headers.get("Authorization") == "Bearer t0ken-of-balance"
        if received.target.endswith("/balances") and not known:
            return answer.put({"code": "WHO"}, 401)
        return row_of("cards", bank=None)(received, answer)

    (tmp_path / "shop.py").write_text("def request(asked): ...\ndef parse(response, asked): ...\n")
    names = ("order", "merchant", "member", "card", "channel", "risk", "engine", "acquirer")
    async with spoiled_sandbox(spoil) as address:
        tables = [f'{name}.url = "{address}"' for name in names]
        tables += [f'quota = {{url = "{address}", adapter = "shop"}}']
        tables += [f'balance = {{url = "{address}", auth = {{bearer = {{token_env = "BALANCE_TOKEN"}}}}}}']
        config = tmp_path / "cashier.toml"
        config.write_text("[sources]\n" + "\n".join(tables))
        words = ("--all", "--config", str(config), "--order-id", "o_1002", "--json", *BRIEF)
        result = await asyncio.to_thread(invoke, *words)
    assert result.exit_code == 1, result.output
    services = {service["source"]: service for service in orjson.loads(result.stdout_bytes)["services"]}
    failed = {name for name, service in services.items() for rule in service["results"] if rule["verdict"] == "FAILED"}
    assert failed == {"card", "quota"}
    assert {rule["verdict"] for rule in services["risk"]["results"]} == {"SKIPPED"}
    assert set(services) == {*names, "quota", "balance"}
    assert "t0ken" not in result.output


async def test_one_service_of_a_configuration_is_asked_by_its_adapter_and_no_other_is_tried(tmp_path: Path) -> None:
    """But for the order, which tells what the others are asked about."""
    asked: Counter[str] = Counter()

    def seen(received: Received, answer: Answer) -> Answer:
        asked[received.target.partition("?")[0]] += 1
        return answer

    (tmp_path / "shop.py").write_text(
        "from cashier.wire.transport import Request\n"
        "def request(asked):\n    return Request(f\"/members/{asked['user_id']}/cards?shop=1\")\n"
        "def parse(response, asked):\n    return None if response.status == 404 else response.json()\n"
    )
    async with spoiled_sandbox(seen) as address:
        tables = [f'{name}.url = "{address}"' for name in ("order", "merchant", "member", "balance")]
        config = tmp_path / "cashier.toml"
        config.write_text("\n".join(["[sources]", *tables, f'card = {{url = "{address}", adapter = "shop"}}']))
        words = ("--all", "--source", "card", "--config", str(config), "--json", *BRIEF)
        result = await asyncio.to_thread(invoke, *words)
    assert result.exit_code == 0, result.output
    assert [service["source"] for service in orjson.loads(result.stdout_bytes)["services"]] == ["card"]
    assert asked.pop("/orders/o_1001") == 1
    assert all(target.endswith("/cards") for target in asked), asked


@pytest.mark.parametrize("source", SOURCE_NAMES)
def test_a_configuration_of_one_source_needs_no_inputs(source: str, tmp_path: Path) -> None:
    """Without an order that tells them; and the service does not listen."""
    (tmp_path / "cashier.toml").write_text(f'[sources]\n{source}.url = "{NO_SERVICE}"\n')
    result = invoke("--all", "--config", str(tmp_path / "cashier.toml"), *BRIEF)
    assert (result.exit_code, result.exception.__class__) == (1, SystemExit), result.output
    assert f"{source} does not conform" in result.output


async def test_a_configured_credential_is_used_and_not_printed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken-of-cards")
    seen: list[str] = []

    def demanding(received: Received, answer: Answer) -> Answer:
        seen.append({name.lower(): value for name, value in received.headers.items()}.get("authorization", ""))
        return answer if seen[-1] == "Bearer t0ken-of-cards" else answer.put({}, 401)

    async with spoiled_sandbox(demanding) as address:
        config = tmp_path / "cashier.toml"
        tables = [f'card = {{url = "{address}", auth.bearer.token_file = "{token}"}}', f'balance.url = "{address}"']
        config.write_text("[sources]\n" + "\n".join(tables))
        words = ("--all", "--config", str(config), "--user-id", "u_1", "--json", *BRIEF)
        result = await asyncio.to_thread(invoke, *words)
    services = {service["source"]: service for service in orjson.loads(result.stdout_bytes)["services"]}
    failed = {name for name, service in services.items() for rule in service["results"] if rule["verdict"] == "FAILED"}
    assert failed == {"balance"}
    assert "t0ken" not in result.output
    assert set(seen) == {"", "Bearer t0ken-of-cards"}


async def test_an_engine_is_paid_at_only_with_a_named_test_payment() -> None:
    submits: list[Any] = []

    def counted(received: Received, answer: Answer) -> Answer:
        if received.method == "POST" and received.target == "/payments":
            submits.append(received.json)
        return answer

    without = await conform(counted, "--source", "engine")
    assert (without.exit_code, submits) == (0, [])
    paying = (*TEST_PAYMENT, "--risk-url", "URL", "--leg", "CHANNEL:ch_wallet_alipay", "--kind", "WALLET")
    result = await conform(counted, "--source", "engine", *paying)
    assert result.exit_code == 0, result.output
    assert {submit["amount"]["value"] for submit in submits} == {12_800}


async def test_a_certificate_of_another_authority_is_refused_and_one_of_the_given_is_not(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with spoiled_sandbox(right, tls=context) as address:
        words = (address, "--source", "card", *BRIEF)
        refused = await asyncio.to_thread(invoke, *words)
        trusted = await asyncio.to_thread(invoke, *words, "--ca-file", str(ca_file))
    assert refused.exit_code == 1
    assert "answers: TLS: " in refused.output
    assert trusted.exit_code == 0, trusted.output


async def test_a_service_that_does_not_listen_does_not_conform() -> None:
    result = await asyncio.to_thread(invoke, NO_SERVICE, "--source", "card", *BRIEF)
    assert result.exit_code == 1
    assert "nothing listens there" in result.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give the address of a service and --source"),
        ((NO_SERVICE,), "give the address of a service and --source"),
        ((NO_SERVICE, "--source", "cards"), "none of the contract: order, merchant"),
        (("ftp://x", "--source", "card"), "supported are http://"),
        ((NO_SERVICE, "--source", "card", "--id", "u 1"), "is not an id"),
        ((NO_SERVICE, "--source", "channel", "--id", "ch_1"), "leave --id out"),
        ((NO_SERVICE, "--source", "card", "--country", "China"), "is not a country"),
        ((NO_SERVICE, "--source", "marketing", "--amount", "CNY"), "is not an amount"),
        ((NO_SERVICE, "--source", "marketing", "--amount", "XXX:1"), "none of ISO 4217"),
        ((NO_SERVICE, "--source", "marketing", "--amount", "\udcff:1"), "none of ISO 4217"),
        *(
            ((NO_SERVICE, "--source", "card", "--batch", path), "--batch is a path")
            for path in ("batch", "", "/b c", "/b#c", "/b\n", "/\u00e9", "/\udcff")
        ),
        ((NO_SERVICE, "--source", "card", "--user-id", "\udcff"), "is not an id"),
        ((NO_SERVICE, "--source", "card", "--id", "\udcff"), "is not an id"),
        ((NO_SERVICE, "--source", "engine", "--header", "IDEMPOTENCY-key: x"), "Idempotency-Key of their own"),
        ((NO_SERVICE, "--source", "card", "--header", "Host: x"), "invalid, reserved or repeated name"),
        ((NO_SERVICE, "--source", "risk"), "each call of risk counts"),
        ((NO_SERVICE, "--source", "engine", "--moves-money"), "give --order-id, --user-id and --amount"),
        ((NO_SERVICE, "--source", "engine", *TEST_PAYMENT), "needs --leg"),
        ((NO_SERVICE, "--source", "engine", *TEST_PAYMENT, "--leg", "CARD:c_1"), "--leg is BALANCE:ACCOUNT"),
        ((NO_SERVICE, "--source", "engine", *TEST_PAYMENT, "--kind", "CASH"), "no kind of payment method"),
        ((NO_SERVICE, "--source", "card", "--junit", "/nonexistent/junit.xml"), "no folder /nonexistent"),
        ((NO_SERVICE, "--source", "card", "--calls", "0"), "Invalid value"),
        ((NO_SERVICE, "--all"), "leave them out"),
        (("--all", "--source", "cards"), "none of the contract: order, merchant"),
        ((NO_SERVICE, "--source", "card", "--config", "cashier.toml"), "--config needs --all"),
        (("--all", "--config", "/nonexistent/cashier.toml"), "/nonexistent/cashier.toml"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_to_give(words: tuple[str, ...], says: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2, result.output
    assert says in " ".join(result.output.replace("│", " ").split())
