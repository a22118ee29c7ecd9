"""The README tells the truth: its examples run, its links lead somewhere."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import runpy
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import aiohttp
import pytest
import uvicorn

from cashier import Cashier
from cashier.sandbox import CASES
from cashier.settings.loader import configuration
from tests.domain.payment_diagram import block
from tests.support.command_processes import ROOT, configured, running

README = (ROOT / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
FROM_CONFIG, OWN_FUNCTIONS, PAYING, MOUNTED, ADAPTER = EXAMPLES


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


@pytest.fixture
def checkout(sandbox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the example configuration, as the examples expect to be run in."""
    monkeypatch.setenv("CASHIER_TOKEN_SECRET", "t" * 32)
    configured(tmp_path, sandbox)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_from_a_configuration_prints_ways_to_pay(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script(checkout, FROM_CONFIG)
    out = capsys.readouterr().out
    assert "1 AVAILABLE CMB Bank credit card (1014) 108.72 CNY" in out


def test_the_example_with_own_functions_asks_them(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(checkout, OWN_FUNCTIONS)
    assert capsys.readouterr().out.strip() == "AVAILABLE"


def test_the_example_that_pays_pays(
    checkout: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running("sandbox", "--port", "0", "--weather", "still") as its_own:  # an order can be paid once
        directory = tmp_path_factory.mktemp("paying")
        configured(directory, its_own.address("Sandbox on"))
        monkeypatch.chdir(directory)
        run_script(directory, PAYING)
    assert capsys.readouterr().out.strip() == "SUCCEEDED 108.72 CNY"


@pytest.mark.peers
def test_a_payment_by_hand_goes_through_as_it_is_written_down(tmp_path: Path) -> None:
    assert [name for name in ("bash", "curl", "jq") if shutil.which(name) is None] == [], "not installed"
    by_hand = README[README.index("url=http://127.0.0.1:8080") :].partition("```")[0]
    with running("sandbox", "--port", "0", "--weather", "still") as upstreams:
        path = configured(tmp_path, upstreams.address("Sandbox on"), "")
        with running("serve", "--config", str(path)) as service:
            script = by_hand.replace("http://127.0.0.1:8080", service.address("Serving on"))
            told = subprocess.run(
                ["/bin/bash", "-c", script], capture_output=True, text=True, check=True, timeout=60
            ).stdout
    assert told.count('"status":"SUCCEEDED"') == 2


def test_the_payments_readme_draws_the_transition_table() -> None:
    assert block() in (ROOT / "cashier/payments/README.md").read_text("utf-8")


def run_script(directory: Path, text: str) -> None:
    path = directory / "example.py"
    path.write_text(text)
    runpy.run_path(str(path), run_name="__main__")


async def test_the_mounted_example_answers_under_its_path(checkout: Path) -> None:
    shop = module(checkout, "mounted_example", MOUNTED)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(shop.shop, log_config=None))
        ended = asyncio.create_task(server.serve(sockets=[listening]))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/pay/v1/consult", json=CASES["chinese_shop"].request) as response:
                assert response.status == 200
                assert (await response.json())["methods"][0]["availability"] == "AVAILABLE"
            async with session.get(f"{url}/pay/readyz") as response:
                assert response.status == 200
            async with session.get(f"{url}/openapi.json") as response:
                assert (await response.json())["info"]["title"] == "FastAPI"
        server.should_exit = True
        await ended


def test_the_adapter_of_the_example_joins_a_service_of_another_shape(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = module(checkout, "adapter_example", ADAPTER)
    monkeypatch.setitem(sys.modules, "my_adapter", adapter)
    sources = {
        name: {"url": "http://127.0.0.1:1"}
        for name in ("order", "merchant", "member", "balance", "channel", "quota", "marketing")
    }
    config = configuration({"sources": {**sources, "card": {"url": "http://127.0.0.1:1", "adapter": "my_adapter"}}}, "")
    assert Cashier(config=config).plan
    assert adapter.request({"user_id": "u_9"}).target == "/v2/wallet?uid=u_9"
    body = b'{"items":[{"no":"c_1","bank":"ICBC","bankName":"ICBC","tail":"1234","validThru":"2031-05"}]}'
    found = adapter.parse(200, body, {"user_id": "u_9"})
    assert [card.last4 for card in found.cards] == ["1234"]
    assert adapter.parse(404, b"", {"user_id": "u_9"}).cards == ()


def module(directory: Path, name: str, text: str) -> ModuleType:
    path = directory / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_every_file_that_the_readme_names_is_there() -> None:
    named = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(
        r"`((?:cashier|config|tests|benchmarks)/[\w./]*)`", README
    )
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_two_commands_stand_in_the_readme() -> None:
    assert "python -m pip install -e . && cashier demo" in README
    assert "python -m pip install -e '.[test]' && python -m pytest" in README
