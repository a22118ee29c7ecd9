"""`config/README.md` documents every key with its type, default and bounds, as the settings structs have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec import inspect

from cashier.core import Cashier
from cashier.domain.catalog import Terms, Wording
from cashier.domain.ranking import Weights
from cashier.domain.routing_rules import Routing
from cashier.settings.loader import load
from cashier.settings.schema import Settings

DOCUMENT = (Path(__file__).parent.parent.parent / "config/README.md").read_text("utf-8")
# The heading of each struct's table, and the structs that a configuration consists of.
ROOTS = (Settings, Terms, Wording, Weights, Routing)
UNITS = {"_ms": "ms", "_s": "s", "_bps": "bps", "_bytes": "bytes"}


class Row(NamedTuple):
    """What a row says of a key before its effect."""

    key: str
    type: str
    default: str
    bounds: str


def structs(info: inspect.Type) -> Iterator[inspect.StructType]:
    """The struct types below a type, itself included, without repetition by name."""
    match info:
        case inspect.StructType():
            yield info
            for field in info.fields:
                yield from structs(field.type)
        case inspect.UnionType():
            for option in info.types:
                yield from structs(option)
        case inspect.VarTupleType() | inspect.FrozenSetType():
            yield from structs(info.item_type)
        case inspect.DictType():
            yield from structs(info.value_type)


STRUCTS = {found.cls.__name__: found for root in ROOTS for found in structs(inspect.type_info(root))}


def type_text(info: inspect.Type) -> str:
    match info:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "integer"
        case inspect.FloatType():
            return "number"
        case inspect.StrType():
            return "text"
        case inspect.LiteralType():
            return " or ".join(literal(value) for value in sorted(info.values, key=info.values.index))
        case inspect.EnumType():
            return "text"
        case inspect.VarTupleType() | inspect.FrozenSetType():
            return f"list of {type_text(info.item_type)}s"
        case inspect.StructType() | inspect.DictType():
            return "table"
        case inspect.UnionType():
            options = [type_text(option) for option in info.types if not isinstance(option, inspect.NoneType)]
            return " or ".join(options)
    raise AssertionError(f"no words for {info}")


def literal(value: Any) -> str:
    """A default as TOML writes it; a dash where there is none or the table is empty."""
    if value in (None, (), {}) or isinstance(value, msgspec.Struct):
        return "–"
    return f"`{msgspec.toml.encode({'x': value}).decode().removeprefix('x = ').strip()}`" if False else f"`{toml(value)}`"


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
