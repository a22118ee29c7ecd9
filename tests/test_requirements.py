"""Each requirement in `cashier/README.md` names a module and a test that exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.command_processes import ROOT

README = (ROOT / "cashier" / "README.md").read_text("utf-8")
SECTION = README.partition("\n## Requirements\n")[2].partition("\n## ")[0]
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in SECTION.splitlines()
    if line.startswith("| ") and not line.startswith("| requirement ") and not line.startswith("| **")
]


def test_the_table_is_there() -> None:
    assert len(ROWS) > 40
    assert len({requirement for requirement, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("requirement", "module", "test"), ROWS)
def test_a_requirement_has_a_module_and_a_test(requirement: str, module: str, test: str) -> None:
    linked = re.fullmatch(r"\[`([\w/.]+)`\]\(([\w/.]+)\)", module)
    assert linked, f"{requirement}: {module}"
    assert linked[1] == linked[2]
    assert (ROOT / "cashier" / linked[1]).is_file()
    path, _, name = test.strip("`").partition("::")
    functions = ast.walk(ast.parse((ROOT / "tests" / path).read_text("utf-8")))
    assert name in {node.name for node in functions if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
