"""`cashier adapter try`: one adapter with sample answers, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cashier.cli.commands import cli

ADAPTERS = """
from cashier.wire.transport import Request

class Cards:
    statuses = {200, 410}

    def __init__(self, settings):
        self.key = settings.options["key"]

    def request(self, asked):
        return Request(f"/wallet?uid={asked['user_id']}", headers={"Authorization": f"Bearer {self.key}"})

    def parse(self, response, asked):
        if response.status == 410:
            return None
        uid = response.json()["uid"]
        page = response.headers["X-Page"]
        return {"user_id": uid, "cards": [], "agreement": [], "agreements": [], "page": page}

class Quotas:
    def __init__(self, settings): ...

    async def answer(self, asked, call):
        token = (await call(Request("/token", "POST", b"{}"))).json()["token"]
        limits = (await call(Request("/limits", headers={"Authorization": f"Bearer {token}"}))).json()
        return {"user_id": asked["user_id"], "quotas": [{"scope": {"kind": "WALLET"}, "single": row} for row in limits]}
"""
CONFIG = """
[sources.card]
url = "http://127.0.0.1:9/v2"
adapter = "try_adapters:Cards"
options = { key = "k 1" }

[sources.quota]
url = "http://127.0.0.1:9"
adapter = "try_adapters:Quotas"

[sources.balance]
url = "http://127.0.0.1:9"
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "try_adapters.py").write_text(ADAPTERS)
    (tmp_path / "cashier.toml").write_text(CONFIG)
    for name, body in (("good", {"uid": "u_1"}), ("bad", {"id": "u_1"}), ("token", {"token": "t"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(body))
    (tmp_path / "limits.json").write_text(json.dumps([{"currency": "CNY", "value": 100}]))
    return tmp_path


def tried(shop: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["adapter", "try", *words, "--config", str(shop / "cashier.toml")])


def test_a_trial_shows_the_request_and_the_answer_and_near_misses(shop: Path) -> None:
    result = tried(shop, "card", "--user-id", "u_1", "--body", str(shop / "good.json"), "--header", "X-Page: 1")
    assert result.exit_code == 0
    assert "GET /v2/wallet?uid=u_1  200\n    Authorization: Bearer k 1\n" in result.output
    assert '"user_id": "u_1"' in result.output
    assert "card agreement is not in the contract; did you mean 'agreements'?" in result.output


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("--user-id", "u_1", "--body", "bad.json"), "GARBLED: adapter try_adapters:Cards: parse() raised KeyError"),
        (("--user-id", "u_1", "--body", "bad.json"), "try_adapters.py, line 1"),
        (("--user-id", "u_1", "--body", "bad.json"), "KeyError: 'uid'"),
        (("--user-id", "u_2", "--body", "good.json", "--header", "X-Page:1"), "WRONG_IDENTITY"),
        (("--user-id", "u_1", "--status", "500"), "UNREACHABLE: status 500"),
        (("--user-id", "u_1", "--body", "none.json"), "none.json: cannot be read"),
        ((), "card is asked with user_id: give --user-id"),
        (("--user-id", "u_1", "--live", "--status", "200"), "--live takes the answers of the service"),
    ],
)
def test_a_fault_is_shown_with_its_place_and_ends_with_status_1(shop: Path, words: tuple[str, ...], shown: str) -> None:
    placed = [str(shop / word) if word.endswith(".json") else word for word in words]
    result = tried(shop, "card", *placed)
    assert result.exit_code == 1
    assert shown in result.output


def test_there_is_none_is_no_fault(shop: Path) -> None:
    result = tried(shop, "card", "--user-id", "u_1", "--status", "410")
    assert result.exit_code == 0
    assert "There is none, which means:" in result.output


def test_several_requests_take_the_samples_in_order(shop: Path) -> None:
    words = ("--user-id", "u_1", "--amount", "CNY:100", "--json")
    bodies = ("--body", str(shop / "token.json"), "--body", str(shop / "limits.json"))
    trial: dict[str, Any] = json.loads(tried(shop, "quota", *words, *bodies).output)
    assert [(request["method"], request["target"], request["status"]) for request in trial["requests"]] == [
        ("POST", "/token", 200), ("GET", "/limits", 200),
    ]  # fmt: skip
    assert trial["requests"][1]["headers"] == [["Authorization", "Bearer t"]]
    assert trial["answer"]["quotas"][0]["single"] == {"currency": "CNY", "value": 100}
    result = tried(shop, "quota", *words[:-1], *bodies[:2])
    assert "there is no sample for this request" in result.output
    result = tried(shop, "quota", *words[:-1], *bodies, "--body", str(shop / "limits.json"))
    assert "1 of the samples were not asked for." in result.output


@pytest.mark.parametrize(
    ("source", "shown"),
    [("balance", "[sources.balance] has no adapter"), ("engine", "there is no source 'engine' of a consultation")],
)
def test_what_has_no_adapter_cannot_be_tried(shop: Path, source: str, shown: str) -> None:
    result = tried(shop, source, "--user-id", "u_1")
    assert result.exit_code == 1
    assert shown in result.output
