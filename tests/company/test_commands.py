"""The commands of an operator over the company's configuration, as they are typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from string import Template

import pytest

from cashier.sandbox import World
from cashier.sandbox.recorded_answers import RecordedReader
from tests.company.company import FOLDER, KEYS, Company, open_company
from tests.company.faults import instead, mistaken, page
from tests.support.forked_commands import Run, commands


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with commands() as run_command:
        yield run_command


@pytest.fixture
async def company() -> AsyncIterator[Company]:
    async with open_company(World()) as opened:
        yield opened


@pytest.fixture
def config(company: Company, tmp_path: Path) -> str:
    """The configuration with the addresses of this company, beside the adapters."""
    (tmp_path / "adapters").symlink_to(FOLDER / "adapters")
    file = tmp_path / "cashier.toml"
    file.write_text(Template((FOLDER / "cashier.toml").read_text("utf-8")).substitute(company.environ), "utf-8")
    return str(file)


async def typed(run: Run, *words: str) -> tuple[int, str]:
    """Exit status and output. In a thread, because the company serves on this one."""
    status, out, _ = await asyncio.to_thread(run, *words)
    return status, " ".join(out.split())


async def test_check_finds_nothing_wrong(company: Company, run: Run, config: str) -> None:
    status, output = await typed(run, "check", "--config", config)
    assert status == 0
    assert f"{config} is good." in output


async def test_probe_shows_what_each_service_was_asked_and_what_its_adapter_made_of_it(
    company: Company, run: Run, config: str
) -> None:
    status, output = await typed(run, "probe", "--order-id", "o_1001", "--config", config)
    assert status == 0
    assert "10 of 10 sources gave a usable answer." in output
    assert "What matches nothing" not in output
    for request in ("POST /OrderService", "GET /shop?id=m_1", "GET /jobs/j1", "GET /holders/u_1/mandates"):
        assert request in output
    assert '"thru"' not in output
    assert company.requests["risk"] == []
    assert not any(request.startswith("POST") for request in company.requests["engine"])


async def test_probe_names_the_adapter_that_cannot_read_its_service(company: Company, run: Run, config: str) -> None:
    instead(page)(company, "quota")
    mistaken(company, "card")
    instead(page)(company, "acquirer")
    status, output = await typed(run, "probe", "--order-id", "o_1001", "--config", config)
    assert status == 1
    assert "GARBLED: adapter adapters.quota: parse() raised DecodeError (quota.py, line" in output
    assert "WRONG_IDENTITY: adapter adapters.card: cards of another holder" in output
    assert "GARBLED: adapter adapters.acquirer: result() raised DecodeError (acquirer.py, line" in output
    assert "7 of 10 sources gave a usable answer." in output


def brief_conform(config: str, *words: str) -> tuple[str, ...]:
    return (
        "conform",
        "--all",
        "--config",
        config,
        "--calls",
        "3",
        "--concurrency",
        "3",
        "--timeout-ms",
        "30000",
        *words,
    )


async def test_every_service_conforms_behind_its_adapter(company: Company, run: Run, config: str) -> None:
    status, output = await typed(run, *brief_conform(config))
    assert status == 0, output
    for name in ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing"):
        assert f"{name} conforms (" in output
    assert output.count("not examined: a payment service with an adapter") == 3
    assert "0 warned" in output


async def test_a_recording_of_adapted_services_has_the_shape_of_the_contract(
    company: Company, run: Run, config: str, tmp_path: Path
) -> None:
    out = tmp_path / "recordings"
    status, _ = await typed(run, "record", "--order-id", "o_1001", "--config", config, "--out", str(out))
    assert status == 0
    reader = RecordedReader(out)
    [request] = reader.requests
    assert len(reader.sources) == 8
    assert reader.look_up("card", {"user_id": request["user_id"]}).body["cards"]


async def test_a_broken_service_does_not_conform_and_shows_no_credential(
    company: Company, run: Run, config: str
) -> None:
    instead(page)(company, "quota")
    mistaken(company, "balance")
    status, output = await typed(run, *brief_conform(config, "--json"))
    assert status == 1
    services = {service["source"]: service for service in json.loads(output)["services"]}
    failed = {
        name: [rule["rule"] for rule in service["results"] if rule["verdict"] == "FAILED"]
        for name, service in services.items()
    }
    assert "answers" in failed.pop("quota")
    assert "identity" in failed.pop("balance")
    assert not any(failed.values())
    assert not [secret for secret in KEYS.values() if secret in output]
