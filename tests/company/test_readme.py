"""The folder is an example: its README counts the lines, and the adapters are nothing but that."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.company.company import FOLDER, SERVICES

ADAPTERS = sorted((FOLDER / "adapters").glob("[a-z]*.py"))
# What cashier/sources/README.md and cashier/payments/ports.py give to authors of adapters.
INTERFACE = {
    "cashier.payments.ports",
    "cashier.source_errors",
    "cashier.sources.adapter_settings",
    "cashier.wire.transport",
}
NETWORK = {"socket", "ssl", "http", "urllib.request", "asyncio.streams", "aiohttp"}


def lines(file: Path) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in file.read_text("utf-8").splitlines())


def imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return names


def test_the_readme_counts_the_lines_of_each_adapter() -> None:
    counted = dict(re.findall(r"\[`adapters/(\w+)\.py`\]\(adapters/\w+\.py\) +\| (\d+)", readme()))
    assert {name: int(count) for name, count in counted.items()} == {file.stem: lines(file) for file in ADAPTERS}
    (total,) = re.findall(r"(\d+) lines in all", readme())
    assert int(total) == sum(map(lines, ADAPTERS))


def test_each_source_has_an_adapter_and_a_service_of_its_own() -> None:
    assert set(SERVICES) <= {file.stem for file in ADAPTERS}
    assert len(SERVICES) == 11


@pytest.mark.parametrize("file", ADAPTERS, ids=lambda file: file.stem)
def test_an_adapter_imports_only_the_interface_and_the_standard_library_and_no_network(file: Path) -> None:
    names = imports(file)
    assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} <= INTERFACE
    assert not names & NETWORK


def readme() -> str:
    return (FOLDER / "README.md").read_text("utf-8")
