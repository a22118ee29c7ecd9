"""`cashier adapter new`: what it writes runs, and its test passes and can fail."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cashier.cli.commands import cli
from cashier.consultation.source_table import SOURCE_NAMES


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["adapter", "new", *words])
    return result.exit_code, result.stdout, result.stderr


def functions_of(path: Path) -> Iterator[Callable[[], None]]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield from (value for name, value in vars(module).items() if name.startswith("test_"))


@pytest.mark.parametrize("source", SOURCE_NAMES)
def test_the_adapter_of_each_source_passes_its_test_until_it_is_changed(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"new_{source}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    status, out, error = run(name, "--source", source, "--folder", str(tmp_path))
    assert (status, error) == (0, "")
    assert f'[sources.{source}] adapter = "{name}"' in out
    adapter, test = tmp_path / f"{name}.py", tmp_path / f"test_{name}.py"
    written = adapter.read_text("utf-8")
    assert max(map(len, (written + test.read_text("utf-8")).splitlines())) <= 160
    found = list(functions_of(test))
    assert len(found) == 3
    for run_test in found:
        run_test()
    adapter.write_text(written.replace('answer["', 'answer["other_', 1), "utf-8")
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(AssertionError):
        next(functions_of(test))()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a-b", "--source", "card"), "names no Python module"),
        (("class", "--source", "card"), "names no Python module"),
        *(
            ((name, "--source", "card"), "is a module of Python or of a library")
            for name in ("json", "types", "random", "asyncio", "msgspec", "cashier")
        ),
        (("../x", "--source", "card"), "names no Python module"),
        (("wallet", "--source", "risk"), "there is no source 'risk' of a consultation; known are order"),
        (("wallet", "--source", "card", "--folder", "absent"), "there is no folder absent: name that of your"),
        (("wallet", "--source", "card", "--folder", "/proc"), "/proc/wallet.py: No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    folder = () if "--folder" in words else ("--folder", str(tmp_path))
    status, out, error = run(*words, *folder)
    assert (status, out) == (1, "")
    assert said in " ".join(error.split())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_wallet.py").write_text("mine")
    status, _, error = run("wallet", "--source", "card", "--folder", str(tmp_path))
    assert status == 1
    assert "exists; choose another name" in " ".join(error.split())
    assert not (tmp_path / "wallet.py").exists()
    assert (tmp_path / "test_wallet.py").read_text() == "mine"
