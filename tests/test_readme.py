"""The READMEs: their examples run in the order of reading, their links lead somewhere.

One sandbox and one service serve all examples, without a restart in between.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import aiohttp
import pytest
import structlog
import uvicorn

from cashier import Cashier
from cashier.sandbox import CASES
from cashier.settings.loader import load
from tests.support.command_processes import ROOT, configured, running

PAGES = sorted([ROOT / "README.md", *ROOT.glob("[a-z]*/README.md"), *ROOT.glob("cashier/*/README.md")])
README = (ROOT / "README.md").read_text("utf-8")
PACKAGE_README = (ROOT / "cashier" / "README.md").read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


(BY_HAND,) = blocks(README, "bash")
(EMBED,) = blocks(README, "python")
PAY, FUNCTIONS, MOUNT = blocks(PACKAGE_README, "python")
(MINIMAL_CONFIG,) = blocks(README, "toml")
# The payment by hand, if it ran, has used the red packet of 2.88.
PRICES_OF_O_1002 = ("32.12 CNY", "35.00 CNY")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


@pytest.fixture(scope="module")
def checkout(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with config/cashier.toml, as the examples expect."""
    directory = tmp_path_factory.mktemp("checkout")
    configured(directory, sandbox)
    return directory


@pytest.fixture
def in_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CASHIER_TOKEN_SECRET", "t" * 32)
    monkeypatch.chdir(checkout)
    return checkout


@pytest.mark.peers
def test_the_payment_by_hand_succeeds(checkout: Path) -> None:
    with running("serve", "--config", str(checkout / "config" / "cashier.toml")) as service:
        script = BY_HAND.replace("http://127.0.0.1:8080", service.address("Serving on"))
        run = subprocess.run(["/bin/bash", "-euc", script], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.count('"status":"SUCCEEDED"') == 2


def test_the_embedding_example_prints_payment_methods(in_checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(in_checkout, EMBED)
    out = capsys.readouterr().out
    assert any(f"1 AVAILABLE China Merchants Bank credit card (1014) {price}" in out for price in PRICES_OF_O_1002)


def test_the_paying_example_pays(in_checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()  # a test before may have configured it
    run_script(in_checkout, PAY)
    assert capsys.readouterr().out.strip() in [f"SUCCEEDED {price}" for price in PRICES_OF_O_1002]


def test_the_functions_example_calls_the_function(in_checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(in_checkout, FUNCTIONS)
    assert capsys.readouterr().out.strip() == "AVAILABLE"


async def test_the_mounting_example_serves_below_its_path(in_checkout: Path) -> None:
    shop = imported(in_checkout, "mounted_example", MOUNT)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(shop.shop, log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/pay/v1/consult", json=CASES["guest_order"].request) as response:
                assert response.status == 200
                assert (await response.json())["methods"][0]["availability"] == "AVAILABLE"
            async with session.get(f"{url}/pay/readyz") as response:
                assert response.status == 200
            async with session.get(f"{url}/openapi.json") as response:
                assert (await response.json())["info"]["title"] == "FastAPI"
        server.should_exit = True
        await serving


def test_the_minimal_configuration_starts(tmp_path: Path) -> None:
    path = tmp_path / "cashier.toml"
    path.write_text(MINIMAL_CONFIG)
    assert Cashier(config=load(path)).plan


@pytest.mark.proof
def test_the_python_examples_pass_a_strict_type_check(tmp_path: Path) -> None:
    examples = [block for page in PAGES for block in blocks(page.read_text("utf-8"), "python")]
    assert len(examples) >= 5
    files = []
    for number, example in enumerate(examples):
        path = tmp_path / f"example_{number}.py"
        path.write_text(example)
        files.append(str(path))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path / "cache"),
        *files,
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr


def run_script(directory: Path, text: str) -> None:
    path = directory / "example.py"
    path.write_text(text)
    runpy.run_path(str(path), run_name="__main__")


def imported(directory: Path, name: str, text: str) -> ModuleType:
    path = directory / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_of_the_project_exists(page: Path) -> None:
    for path in re.findall(r"`((?:cashier|config|tests)/[\w./]*)`", page.read_text("utf-8")):
        assert (ROOT / path).exists(), path


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_fits_on_four_screens() -> None:
    assert len(README.splitlines()) <= 200


def test_the_glossary_is_short() -> None:
    glossary = PACKAGE_README.partition("\n## Glossary\n")[2]
    assert 0 < glossary.count("\n| **") <= 40


def test_the_two_commands_stand_in_the_readme() -> None:
    assert "python -m pip install -e . && cashier demo" in README
    assert "python -m pip install -e '.[test]' && python -m pytest" in README
