"""Adapters and functions of a configuration: where their modules are found, and their settings."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.settings.loader import configuration
from cashier.settings.plugins import adapter_object, function_of
from cashier.settings.schema import SERVICES, ConfigurationError
from cashier.sources.adapter_settings import AdapterSettings

SETTINGS = AdapterSettings("card", {"key": "secret"}, "/v2")
PLAIN = AdapterSettings("card", {}, "")
URL = "http://127.0.0.1:9100"


@pytest.fixture(autouse=True)
def _unchanged_imports() -> Iterator[None]:
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def folder(tmp_path: Path, name: str, **modules: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    for module, text in modules.items():
        (made / f"{module}.py").write_text(text)
    return made


def test_a_module_beside_the_configuration_is_found_with_its_siblings(tmp_path: Path) -> None:
    beside = folder(tmp_path, "shop", adapters="import signing\nTEXT = signing.TEXT", signing="TEXT = 'signed'")
    assert adapter_object("adapters", PLAIN, beside).TEXT == "signed"
    assert adapter_object("adapters", PLAIN, beside) is sys.modules["adapters"]


def test_two_folders_may_have_a_module_of_one_name(tmp_path: Path) -> None:
    one = folder(tmp_path, "one", adapters="import naming\nTEXT = naming.TEXT", naming="TEXT = 1")
    two = folder(tmp_path, "two", adapters="import naming\nTEXT = naming.TEXT", naming="TEXT = 2")
    first = adapter_object("adapters", PLAIN, one)
    second = adapter_object("adapters", PLAIN, two)
    assert (first.TEXT, second.TEXT, adapter_object("adapters", PLAIN, one).TEXT) == (1, 2, 1)


def test_a_file_of_the_folder_hides_no_module_that_is_in_use(tmp_path: Path) -> None:
    beside = folder(tmp_path, "shop", adapters="import json\nTEXT = json.dumps(1)", json="raise SystemExit")
    assert adapter_object("adapters", PLAIN, beside).TEXT == "1"


@pytest.mark.parametrize("name", ["json", "sys", "types", "msgspec", "pytest", "email.message"])
def test_a_file_with_the_name_of_a_module_in_use_is_named_and_not_that_module(tmp_path: Path, name: str) -> None:
    beside = folder(
        tmp_path, "shop", **{name.partition(".")[0]: "def request(asked): ...\ndef parse(answer, asked): ..."}
    )
    importlib.import_module(name)
    with pytest.raises(ValueError, match=rf"adapter '{name}': another module has this name, .*; rename the one in "):
        adapter_object(name, PLAIN, beside)


def test_a_folder_that_is_reached_by_a_link_has_its_own_modules(tmp_path: Path) -> None:
    folder(tmp_path, "shop", adapters="TEXT = 'found'")
    (tmp_path / "link").symlink_to("shop")
    assert adapter_object("adapters", PLAIN, tmp_path / "shop").TEXT == "found"
    assert adapter_object("adapters", PLAIN, tmp_path / "link").TEXT == "found"


def test_a_package_and_a_file_may_be_links_into_another_folder(tmp_path: Path) -> None:
    there = folder(tmp_path, "there", wallet="TEXT = 'file'")
    (there / "shops").mkdir()
    (there / "shops" / "__init__.py").write_text("")
    (there / "shops" / "cards.py").write_text("TEXT = 'package'")
    here = folder(tmp_path, "here")
    for name in ("wallet.py", "shops"):
        (here / name).symlink_to(there / name)
    assert adapter_object("wallet", PLAIN, here).TEXT == "file"
    assert adapter_object("shops.cards", PLAIN, here).TEXT == "package"


def test_a_class_is_made_once_with_its_settings(tmp_path: Path) -> None:
    text = "class Cards:\n    def __init__(self, settings):\n        self.settings = settings"
    assert adapter_object("adapters:Cards", SETTINGS, folder(tmp_path, "shop", adapters=text)).settings is SETTINGS


def test_a_class_without_arguments_and_a_module_without_configure_take_no_options(tmp_path: Path) -> None:
    beside = folder(tmp_path, "shop", adapters="class Cards:\n    def request(self, asked): ...")
    assert type(adapter_object("adapters:Cards", PLAIN, beside)).__name__ == "Cards"
    assert adapter_object("adapters", PLAIN, beside) is sys.modules["adapters"]
    for name in ("adapters:Cards", "adapters"):
        with pytest.raises(ValueError, match="takes no options"):
            adapter_object(name, SETTINGS, beside)


def test_a_module_is_configured(tmp_path: Path) -> None:
    text = "def configure(settings):\n    global PREFIX\n    PREFIX = settings.path_prefix"
    assert adapter_object("adapters", SETTINGS, folder(tmp_path, "shop", adapters=text)).PREFIX == "/v2"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("import sys\nsys.exit('no licence')", "cannot be imported: SystemExit: no licence"),
        ("def configure(settings):\n    settings.options['rsa']", "does not take its settings: KeyError: 'rsa'"),
        ("def configure(): ...", "does not take its settings: TypeError"),
        ("import no_such_library", "cannot be imported: ModuleNotFoundError: No module named 'no_such_library'"),
    ],
)
def test_a_module_that_cannot_be_used_is_a_fault_of_the_configuration(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ValueError, match="adapters") as raised:
        adapter_object("adapters", SETTINGS, folder(tmp_path, "shop", adapters=text))
    assert fault in str(raised.value)


RAISED = [
    "SystemExit(0)",
    "RuntimeError('no')",
    "KeyError('x')",
    "CancelledError()",
    "Odd()",
    "GeneratorExit()",
]
READ_ATTRIBUTES = ["request", "statuses", "open", "close", "configure", "submit", "reverse", "__signature__"]
FUNCTIONS = (
    " def request(self, asked): ...\n def parse(self, response, asked): ...\n"
    " async def submit(self, one, two): ...\n async def look_up(self, one, two, three): ...\n"
)
# Where the user's code runs at a start, by name.
RAISING = {
    "module": "raise {0}",
    "lazy name": "def __getattr__(name):\n raise {0}",
    "class": "class Made:\n def __init__(self, settings):\n  raise {0}\n" + FUNCTIONS,
    "configure": "def configure(settings):\n raise {0}",
    "metaclass": "class Odd1(type):\n def __getattribute__(self, name):\n  raise {0}\nclass Made(metaclass=Odd1): ...",
    **{
        name: f"class Made:\n{FUNCTIONS} @property\n def {name}(self):\n  raise {{0}}\nmade = Made()"
        for name in READ_ATTRIBUTES
    },
}


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("place", RAISING)
def test_whatever_the_code_of_a_user_raises_at_a_start_is_a_fault_of_its_source(
    tmp_path: Path, place: str, raised: str
) -> None:
    text = f"from asyncio import CancelledError\nclass Odd(BaseException): ...\n{RAISING[place].format(raised)}\n"
    beside = folder(tmp_path, "shop", users_code=text)
    name = "users_code" + ("" if place == "configure" else ":made" if place in READ_ATTRIBUTES else ":Made")
    for source, settings in (
        ("card", {"url": URL, "adapter": name}),
        ("engine", {"url": URL, "adapter": name}),
        ("card", {"url": f"users_code:{name.partition(':')[2] or 'none'}", "transport": "local"}),
        ("engine", {"url": f"users_code:{name.partition(':')[2] or 'none'}", "transport": "local"}),
    ):
        sources = {each: {"url": URL} for each in (*SOURCE_NAMES, *SERVICES)} | {source: settings}
        try:
            Cashier(config=configuration({"sources": sources}, "cashier.toml", beside))
        except ConfigurationError as error:
            (fault,) = error.faults
            assert fault.startswith(f"cashier.toml: [sources.{source}] ")


def test_ctrl_c_in_the_code_of_a_user_is_no_fault(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        adapter_object("adapters", PLAIN, folder(tmp_path, "shop", adapters="raise KeyboardInterrupt"))


def test_functions_are_found_beside_the_configuration_too(tmp_path: Path) -> None:
    beside = folder(tmp_path, "shop", answers="async def cards(user_id): ...\ndef plain(): ...")
    assert function_of("answers:cards", beside).__name__ == "cards"
    with pytest.raises(ValueError, match="is not an async function"):
        function_of("answers:plain", beside)
