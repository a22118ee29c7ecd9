"""Adapters of a whole `Cashier`: found, opened, asked, cached, logged, probed and closed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from cashier import Cashier
from cashier.fanout.ask import SourceStatus
from cashier.probe import probe
from cashier.sandbox import CASES, LocalUpstreams, World, weather_named
from cashier.settings.loader import load
from cashier.settings.schema import ConfigurationError
from tests.service.test_failures import CALLS, REQUEST, answering
from tests.service.test_service import exchange
from tests.support.command_processes import configured, running

HEAD = "from cashier.wire.transport import Request\n\n"
FORM_1 = HEAD + "def request(asked):\n    return Request('/')\n\ndef parse(response, asked):\n    return {value}\n"
FORM_2 = HEAD + "async def answer(asked, call):\n    return (await call(Request('/'))).json()\n"
CARDS: dict[str, Any] = {"user_id": "u_1", "cards": [], "agreements": []}


@pytest.fixture(autouse=True)
def _unchanged_imports() -> Iterator[None]:
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def configuration_beside(folder: Path, adapter: str, url: str, more: str = "", name: str = "shop_adapters") -> Path:
    (folder / f"{name}.py").write_text(adapter)
    path = folder / "cashier.toml"
    path.write_text(
        f'[sources.card]\nurl = "{url}"\nadapter = "{name}"\ntimeout_ms = 5000\n{more}\n'
        "[consult]\ndeadline_ms = 6000\nmax_deadline_ms = 6000\ngrace_ms = 5000\n"
    )
    return path


# Cached answers are stale after two seconds, which the calls of a slow machine take.
ANSWERED = {SourceStatus.FRESH, SourceStatus.CACHED, SourceStatus.STALE}


def others() -> dict[str, Any]:
    functions = dict(LocalUpstreams(World(), weather_named("still")).items())
    del functions["card"]
    return functions


async def statuses_of(cashier: Cashier) -> dict[str, SourceStatus]:
    return {row.name: row.status for row in (await cashier.consult(REQUEST)).sources}


@pytest.mark.parametrize("adapter", [FORM_1.format(value="response.json()"), FORM_2])
async def test_an_adapter_beside_the_configuration_answers_and_is_cached(tmp_path: Path, adapter: str) -> None:
    async with answering(200, CARDS)() as url:
        path = configuration_beside(tmp_path, adapter, url)
        async with Cashier.from_config(path, sources=others()) as cashier:
            assert (await statuses_of(cashier))["card"] is SourceStatus.FRESH
            assert (await statuses_of(cashier))["card"] is SourceStatus.CACHED


@pytest.mark.parametrize("status", [200, 404])
async def test_there_is_none_is_cached_as_negative_whatever_the_status(tmp_path: Path, status: int) -> None:
    async with answering(status, {"code": "E1"})() as url:
        path = configuration_beside(tmp_path, FORM_1.format(value="None"), url, "cache = { negative_s = 60 }")
        async with Cashier.from_config(path, sources=others()) as cashier:
            assert (await statuses_of(cashier))["card"] is SourceStatus.FRESH
            assert (await statuses_of(cashier))["card"] is SourceStatus.CACHED


@pytest.mark.parametrize(
    ("value", "cause", "reason"),
    [
        ("1 / 0", "GARBLED", "adapter shop_adapters: parse() raised ZeroDivisionError (shop_adapters.py, line 7)"),
        ("asked['merchant_id']", "GARBLED", "reads 'merchant_id', but card has only user_id"),
        ("{**response.json(), 'user_id': 'u_2'}", "WRONG_IDENTITY", "adapter shop_adapters: an answer about another"),
        ("{**response.json(), 'cards': [{'expiry': '12/30'}]}", "GARBLED", "at $.cards[0]"),
    ],
)
async def test_a_fault_is_logged_once_and_other_sources_are_untouched(
    tmp_path: Path, value: str, cause: str, reason: str
) -> None:
    async with answering(200, CARDS)() as url:
        path = configuration_beside(tmp_path, FORM_1.format(value=value), url, "breaker = false\nretry = false")
        with structlog.testing.capture_logs() as entries:
            async with Cashier.from_config(path, sources=others()) as cashier:
                for number in range(CALLS):
                    statuses = await statuses_of(cashier)
                    # A source whose every answer names another subject is not connected to again at
                    # once.
                    assert statuses.pop("card").value in ((cause,) if number == 0 else (cause, "ERROR"))
                    assert set(statuses.values()) <= ANSWERED
    lines = [entry for entry in entries if entry["event"] == "no answer from a source"]
    lines = [line for line in lines if not line["reason"].endswith("its last answers were broken")]
    assert [(line["source"], line["cause"]) for line in lines] == [("card", cause)]
    assert reason in lines[0]["reason"]


async def test_an_adapter_is_opened_and_closed_with_the_cashier(tmp_path: Path) -> None:
    hooks = "\nEVENTS = []\n" + "".join(
        f"\nasync def {name}():\n    EVENTS.append('{name}')\n" for name in ("open", "close")
    )
    adapter = FORM_1.format(value="(EVENTS.append('parse'), response.json())[1]") + hooks
    async with answering(200, CARDS)() as url:
        cashier = Cashier.from_config(configuration_beside(tmp_path, adapter, url), sources=others())
        for _ in range(2):  # also when it is opened again
            async with cashier:
                assert (await statuses_of(cashier))["card"] is SourceStatus.FRESH
    assert sys.modules["shop_adapters"].EVENTS == ["open", "parse", "close"] * 2


async def test_an_adapter_that_fails_to_open_leaves_the_start_and_the_stop_in_peace(tmp_path: Path) -> None:
    hooks = "\nasync def open():\n    raise OSError\n\nasync def close():\n    raise OSError\n"
    async with answering(200, CARDS)() as url:
        path = configuration_beside(tmp_path, FORM_1.format(value="response.json()") + hooks, url)
        with structlog.testing.capture_logs() as entries:
            async with Cashier.from_config(path, sources=others()) as cashier:
                assert (await statuses_of(cashier))["card"] is SourceStatus.ERROR
                assert "open() raised OSError" in cashier.failures[0].reason
    lines = [entry for entry in entries if entry["event"] == "an adapter does not open or close"]
    assert "open() raised OSError" in lines[0]["reason"]
    assert "close() raised OSError" in lines[-1]["reason"]


async def test_a_probe_opens_adapters_and_lists_near_misses_of_their_mappings(tmp_path: Path) -> None:
    hooks = "\nOPENED = []\nasync def open():\n    OPENED.append(1)\n"
    adapter = FORM_1.format(value="{**response.json(), 'agreement': [], 'x': OPENED[0]}") + hooks
    async with answering(200, CARDS)() as url:
        path = configuration_beside(tmp_path, adapter, url)
        exchanges, findings = await probe(load(path), {"order_id": "o_1001"}, others())
    (card,) = [exchange for exchange in exchanges if exchange.source == "card"]
    assert (card.fault, card.answer) == (None, CARDS)
    assert "card agreement is not in the contract; did you mean 'agreements'?" in findings


@pytest.mark.parametrize(
    ("adapter", "more", "fault"),
    [
        ("", "", "[sources.card] adapter 'shop_adapters' has no function request and no parse"),
        ("1 / 0", "", "[sources.card] adapter 'shop_adapters' cannot be imported: ZeroDivisionError"),
        (FORM_2, 'batch = { path = "/b" }', "no function parameters(asked)"),
        (FORM_2, "options = 3", "[sources.card] options: expected a table"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_a_fault_of_the_configuration(
    tmp_path: Path, adapter: str, more: str, fault: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Cashier.from_config(configuration_beside(tmp_path, adapter, "http://127.0.0.1:9", more), sources=others())
    assert fault in str(refused.value)


def test_options_without_an_adapter_and_unequal_prefixes_are_faults(tmp_path: Path) -> None:
    path = configuration_beside(tmp_path, FORM_2, "http://127.0.0.1:9")
    text = path.read_text()
    for old, new, fault in (
        ('adapter = "shop_adapters"', "options = { a = 1 }", "[sources.card.options] is for an adapter"),
        (
            'url = "http://127.0.0.1:9"',
            'url = ["http://127.0.0.1:9/a", "http://127.0.0.1:8/b"]',
            "the same path prefix",
        ),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(ConfigurationError) as refused:
            Cashier.from_config(path, sources=others())
        assert fault in str(refused.value)


async def test_new_options_take_a_restart(tmp_path: Path) -> None:
    path = configuration_beside(tmp_path, FORM_2, "http://127.0.0.1:9")
    cashier = Cashier.from_config(path, sources=others())
    path.write_text(path.read_text().replace("timeout_ms", "options = { a = 1 }\ntimeout_ms"))
    assert cashier.reload(load(path)) == ("[sources.card] options has changed",)


@pytest.mark.processes
def test_workers_find_the_adapter_beside_the_configuration(tmp_path: Path) -> None:
    with running("sandbox", "--port", "0", "--weather", "still") as sandbox:
        path = configured(tmp_path, sandbox.address("Sandbox on"))
        adapter = FORM_2.replace("Request('/')", "Request(f\"/members/{asked['user_id']}/cards\")")
        (path.parent / "worker_adapters.py").write_text(adapter)
        path.write_text(path.read_text().replace("[sources.card]", '[sources.card]\nadapter = "worker_adapters"'))
        with running("serve", "--config", str(path), "--workers", "2") as command:
            service = command.address("Serving on")
            request = {**CASES["chinese_shop"].request, "deadline_ms": 2500}
            for _ in range(10):
                status, answer = exchange("POST", f"{service}/v1/consult", request)
                assert status == 200
                assert {row["name"]: row["status"] for row in answer["sources"]}["card"] == "FRESH"
