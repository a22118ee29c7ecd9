"""Imports of the adapters and functions that a configuration names as `package.module:name`.

Modules are found in the configuration's folder and on `sys.path`. A name that cannot be used raises
`ValueError` with the reason.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from cashier.sources.adapter_settings import AdapterSettings
from cashier.sources.service_object import has_port_methods
from cashier.sources.source_upstream import UpstreamFunction

# Modules that were imported from the folder of a configuration. Two configurations may each have
# one of the same name: that of the other is forgotten, while its objects keep working.
_found_in: dict[str, str] = {}


def adapter_object(text: str, settings: AdapterSettings, folder: Path | None) -> Any:
    """The module or object that `[sources.NAME] adapter` names, with its settings.

    A class is instantiated, with them if it takes an argument. Any other object receives them by
    its function `configure`, if it has one.
    """
    value = _imported(text, "adapter", folder)
    with faults_of(f"adapter {text!r} does not take its settings"):
        takes_none = _takes_no_argument(value) if inspect.isclass(value) else not hasattr(value, "configure")
        if inspect.isclass(value) and not (takes_none and settings.options):
            arguments = () if takes_none else (settings,)
            return value(*arguments)
        if not takes_none:
            value.configure(settings)
    if takes_none and settings.options:
        raise ValueError(f"adapter {text!r} takes no options: it has no configure(settings) and no __init__(settings)")
    return value


@contextmanager
def faults_of(what: str, passed: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Raise ValueError for whatever the user's code raises, but Ctrl-C and what is `passed` on.

    SystemExit too: a check would end without a verdict, and with the exit status of the code.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except passed:
        raise
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
        raise ValueError(f"{what}: {_description(error)}") from None


def _takes_no_argument(kind: type) -> bool:
    try:
        return not inspect.signature(kind).parameters
    except (TypeError, ValueError):
        return False


def function_of(text: str, folder: Path | None) -> UpstreamFunction:
    """The async function that a url of transport `local` names."""
    value = _imported(text, "url", folder)
    with faults_of(f"url {text!r}", ValueError):
        return _checked_function(value, text)


def service_of(name: str, text: str, folder: Path | None) -> Any:
    """What the url of a payment service names: an async function, or an object with its port."""
    value = _imported(text, "url", folder)
    with faults_of(f"url {text!r}", ValueError):
        return value if has_port_methods(name, value) else _checked_function(value, text)


def _checked_function(value: Any, text: str) -> UpstreamFunction:
    if not callable(value) or (inspect.isroutine(value) and not inspect.iscoroutinefunction(value)):
        raise ValueError(f"url {text!r} is not an async function")
    function: UpstreamFunction = value
    return function


def _imported(text: str, key: str, folder: Path | None) -> Any:
    """The module or attribute that `package.module[:name]` names. `key` is for errors."""
    module_name, _, path = text.partition(":")
    with faults_of(f"{key} {text!r} cannot be imported"), _look_in(folder, module_name):
        module: ModuleType = importlib.import_module(module_name)
    if folder is not None and _has(folder, module_name) and not _is_in(folder, module_name):
        # It was imported before, under this name.
        where = getattr(module, "__file__", None) or "part of Python"
        raise ValueError(f"{key} {text!r}: another module has this name, {where}; rename the one in {folder}")
    value: Any = module
    for name in path.split(".") if path else ():
        with faults_of(f"{key} {text!r} cannot be read"):
            value = getattr(value, name, None)
        if value is None:
            raise ValueError(f"{key} {text!r}: {module_name} has no {path}")
    return value


@contextmanager
def _look_in(folder: Path | None, module_name: str) -> Iterator[None]:
    """Let an import find what the folder has, which comes first only if it has the named module.

    The folder stays at the end of `sys.path` for later imports, so that no file in it hides a
    module of Python or of a library.
    """
    if folder is None:
        yield
        return
    place = str(folder)
    importlib.invalidate_caches()
    for name in [name for name, other in _found_in.items() if other != place and _has(folder, name)]:
        del _found_in[name]
        sys.modules.pop(name, None)
    if place not in sys.path:
        sys.path.append(place)
    before = set(sys.modules)
    first = _has(folder, module_name)
    if first:
        sys.path.insert(0, place)
    try:
        yield
    finally:
        if first and place in sys.path:
            sys.path.remove(place)
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(f"{place}{os.sep}"):
                _found_in[name] = place


def _has(folder: Path, module_name: str) -> bool:
    return any(file.is_file() for file in _files(folder, module_name))


def _is_in(folder: Path, module_name: str) -> bool:
    """Whether the imported module is the one of the folder, which may be a link to another."""
    file = getattr(sys.modules[module_name.partition(".")[0]], "__file__", None)
    return file is not None and Path(file).resolve() in [own.resolve() for own in _files(folder, module_name)]


def _files(folder: Path, module_name: str) -> tuple[Path, Path]:
    """Where the folder may have the module, or the package that it is in."""
    top = module_name.partition(".")[0]
    return folder / top / "__init__.py", folder / f"{top}.py"


def _description(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
