"""Imports of the adapters and functions that a configuration names as `package.module:name`.

A name that cannot be used raises `ValueError` with the reason.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from cashier.sources.service_object import has_port_methods
from cashier.sources.source import Adapter
from cashier.sources.source_upstream import UpstreamFunction


def adapter_of(text: str) -> Adapter:
    """The adapter that `[sources.NAME] adapter` names."""
    adapter: Adapter = _imported(text, "adapter")
    missing = [name for name in ("request", "parse") if not callable(getattr(adapter, name, None))]
    if missing:
        raise ValueError(f"adapter {text!r} has no function {' and no '.join(missing)}")
    return adapter


def function_of(text: str) -> UpstreamFunction:
    """The async function that a url of transport `local` names."""
    return _checked_function(_imported(text, "url"), text)


def service_of(name: str, text: str) -> Any:
    """What the url of a payment service names: an async function, or an object with its port."""
    value = _imported(text, "url")
    return value if has_port_methods(name, value) else _checked_function(value, text)


def _checked_function(value: Any, text: str) -> UpstreamFunction:
    if not callable(value) or (inspect.isroutine(value) and not inspect.iscoroutinefunction(value)):
        raise ValueError(f"url {text!r} is not an async function")
    function: UpstreamFunction = value
    return function


def _imported(text: str, key: str) -> Any:
    """The module or attribute that `package.module[:name]` names. `key` is for errors."""
    module_name, _, path = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001 - importing the user's module may raise anything
        raise ValueError(f"{key} {text!r} cannot be imported: {type(error).__name__}: {error}") from None
    value: Any = module
    for name in path.split(".") if path else ():
        value = getattr(value, name, None)
        if value is None:
            raise ValueError(f"{key} {text!r}: {module_name} has no {path}")
    return value
