"""Examples of bodies: one for each request and answer with a body of its own."""

from __future__ import annotations

from importlib import resources
from typing import Any

import orjson


def examples() -> dict[str, dict[str, Any]]:
    """By operation id: `body` of the request, and the body of an answer by its status as text."""
    loaded: dict[str, dict[str, Any]] = orjson.loads(
        resources.files("cashier.contract").joinpath("examples.json").read_bytes()
    )
    return loaded
