"""Answers of adapters as JSON: what the service would have sent in the contract's shape.

An adapter may return anything, so nothing is taken on trust: the size and depth are bounded, what
JSON cannot carry is refused instead of being guessed (msgspec would write NaN as null and bytes as
base64), and the result shares nothing with what the adapter keeps.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct

# Far above real answers: the largest, a list of channels, has a few thousand values.
MAX_VALUES = 100_000
MAX_DEPTH = 16
MAX_BYTES = 1 << 22

_encode = msgspec.json.Encoder().encode


class NoContractValue(ValueError):
    """A part of an answer that the contract cannot hold. The text names its type and place only."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self._found = found
        self._path: list[str | int] = []

    def within(self, key: str | int) -> NoContractValue:
        """The same, found in the member `key` of a larger value."""
        self._path.append(key)
        return self

    def __str__(self) -> str:
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in reversed(self._path))
        return f"{self._found} at ${path}" if path else self._found


def encode_answer(value: Any) -> bytes:
    """`value`, a mapping or struct of the contract's shape, as JSON.

    Raises `NoContractValue`, and any exception of a lazy or broken value itself.
    """
    if not _is_object(value):
        raise NoContractValue(f"{described(value)} instead of a mapping")
    body = _encode(_Walk().plain(value, 0))
    if len(body) > MAX_BYTES:
        raise NoContractValue(f"an answer of more than {MAX_BYTES} bytes")
    return body


class _Walk:
    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def plain(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise NoContractValue(f"more than {MAX_VALUES} values")
        kind = type(value)
        if kind is str or kind is int or kind is bool or value is None:
            return value
        if depth > MAX_DEPTH:
            raise NoContractValue(f"a value nested deeper than {MAX_DEPTH} levels")
        if kind is dict or _is_object(value):
            return self._object(_members(value), depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, depth)
        return self._scalar(value, depth)

    def _object(self, members: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        plain = {}
        for key, part in members:
            name = key.value if isinstance(key, Enum) else key
            if not isinstance(name, str):
                raise NoContractValue(f"a key that is {described(name)}")
            if part is UNSET:
                continue
            try:
                plain[str.__str__(name)] = self.plain(part, depth + 1)
            except NoContractValue as fault:
                raise fault.within(_shown_key(name)) from None
        return plain

    def _list(self, parts: Iterable[Any], depth: int) -> list[Any]:
        plain = []
        for index, part in enumerate(parts):
            try:
                plain.append(self.plain(part, depth + 1))
            except NoContractValue as fault:
                raise fault.within(index) from None
        return plain

    def _scalar(self, value: Any, depth: int) -> Any:
        match value:
            case Enum():
                return self.plain(value.value, depth + 1)
            # Subclasses may have methods of their own; these take the plain value out of them.
            case str():
                return str.__str__(value)
            case int():
                return int.__int__(value)
            case float():
                if not math.isfinite(value):
                    raise NoContractValue("a number that is not finite")
                return float.__float__(value)
            case datetime():
                if value.utcoffset() is None:
                    raise NoContractValue("a time without an offset")
                return value.isoformat()
            case date():
                return value.isoformat()
            case UUID():
                return str(value)
        raise NoContractValue(described(value))


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping | Struct) or _is_named_tuple(value) or _is_dataclass(value)


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(type(value), "_fields")


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _members(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        members = [(encoded, getattr(value, name)) for encoded, name in names]
        config = value.__struct_config__
        return members if config.tag is None else [(config.tag_field, config.tag), *members]
    fields = value._fields if _is_named_tuple(value) else [field.name for field in dataclasses.fields(value)]
    return ((name, getattr(value, name)) for name in fields)


def described(value: Any) -> str:
    """The type of a value that is of no use. A coroutine is closed, or Python would warn of it."""
    if inspect.iscoroutine(value):
        value.close()
    kind = type(value).__name__
    return "None" if value is None else f"an {kind}" if kind[:1].lower() in "aeiou" else f"a {kind}"


def _shown_key(name: str) -> str:
    """Keys are field names, but an adapter may use a payer's data as one."""
    return name if name.isascii() and name.isidentifier() and len(name) <= 40 else "…"
