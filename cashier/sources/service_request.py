"""Requests to the services that take payments: in the contract's form, and as an operation.

A service of the contract receives the HTTP request. An object or an adapter of another shape
receives the operation with its arguments, and what it answers is translated into the contract's
response. So the same code reads every answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from cashier.wire.transport import Request


class ServiceRequest(Request, frozen=True, kw_only=True):
    """`operation`: the name of the port's method. `arguments`: its arguments, without the last two.

    The last two are the call headers and the budget, which belong to the call. `options`: keyword
    arguments for an implementation that takes them. Later versions add some, and an implementation
    that does not know them works on without.
    """

    operation: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = MappingProxyType({})

    def known_options(self, function: Callable[..., Any]) -> Mapping[str, Any]:
        """The options that this function takes."""
        if not self.options:
            return {}
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):
            return {}
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return self.options
        by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return {
            name: value
            for name, value in self.options.items()
            if name in parameters and parameters[name].kind in by_name
        }
