"""Requests to the services that take payments: in the contract's form, and as an operation.

A service of the contract receives the HTTP request. An object or an adapter of another shape
receives the operation with its arguments, and what it answers is translated into the contract's
response. So the same code reads every answer.
"""

from __future__ import annotations

from typing import Any

from cashier.wire.transport import Request


class ServiceRequest(Request, frozen=True, kw_only=True):
    """`operation`: the name of the port's method. `arguments`: its arguments, without the last two.

    The last two are the call headers and the budget, which belong to the call.
    """

    operation: str
    arguments: tuple[Any, ...]
