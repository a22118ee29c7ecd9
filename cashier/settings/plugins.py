"""What a configuration names in the user's own code: `package.module:name`. Each raises `ValueError` that says what is wrong with it."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from cashier.sources.source import Adapter
from cashier.sources.source_upstream import UpstreamFunction


def adapter_of(text: str) -> Adapter:
    """The adapter that `[sources.NAME] adapter` names."""
    adapter: Adapter = _named(text, "adapter")
    missing = [name for name in ("request", "parse") if not callable(getattr(adapter, name, None))]
    if missing:
        raise ValueError(f"adapter {text!r} has no function {' and no '.join(missing)}")
    return adapter


def function_of(text: str) -> UpstreamFunction:
    """The async function that a url of transport `local` names."""
    found = _named(text, "url")
    if not callable(found) or (inspect.isroutine(found) and not inspect.iscoroutinefunction(found)):
        raise ValueError(f"url {text!r} is not an async function")
    function: UpstreamFunction = found
    return function


def _named(text: str, key: str) -> Any:
    """The module, or the attribute of one, that `package.module[:name]` names."""
    module_name, _, attribute = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as fault:  # noqa: BLE001 - a module of the user's may fail in any way, and the configuration is what is at fault
        raise ValueError(f"{key} {text!r} cannot be imported: {type(fault).__name__}: {fault}") from None
    found: Any = module
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part, None)
        if found is None:
            raise ValueError(f"{key} {text!r}: {module_name} has no {attribute}")
    return found
