"""What the documents of our API and of the upstream contract have in common: data and structs.

A document is made of text in TOML, of examples in JSON and of the structs that the code decodes and
encodes. A name that the data lacks, or that the code does not know, is a `ValueError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import orjson
from msgspec import Struct

_VALUE = re.compile(r"\$\{(\w+)\}")

Json = dict[str, Any]
T = TypeVar("T")
S = TypeVar("S", bound=Struct)


def fill(part: Any, values: Mapping[str, str | int]) -> Any:
    """Replace `${name}`. A text of nothing else becomes the value itself, which may be a number."""
    match part:
        case dict():
            return {key: fill(value, values) for key, value in part.items()}
        case list():
            return [fill(item, values) for item in part]
        case str() if whole := _VALUE.fullmatch(part):
            return named("value", values, whole[1])
        case str():
            return _VALUE.sub(lambda found: str(named("value", values, found[1])), part)
    return part


def named(what: str, known: Mapping[str, T], name: str) -> T:
    try:
        return known[name]
    except KeyError:
        raise ValueError(f"no {what} is named {name!r}, but {', '.join(known)}") from None


def convert(place: str, value: Json, struct: type[S]) -> S:
    try:
        return msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        raise ValueError(f"{place}: {error}") from None


def decode_example(name: str, value: Json, struct: type[S]) -> S:
    """Decode an example, which must be as the struct is encoded; defaults may be left out."""
    decoded = convert(f"examples.json: {name}", value, struct)
    encoded = orjson.loads(msgspec.json.encode(decoded))
    if not _is_part(value, encoded):
        raise ValueError(f"examples.json: {name}: not as {struct.__name__} is encoded: {encoded}")
    return decoded


def _is_part(value: Any, encoded: Any) -> bool:
    match value, encoded:
        case dict(), dict():
            return all(name in encoded and _is_part(value[name], encoded[name]) for name in value)
        case [str(), *_], list():
            # A set is encoded in any order.
            return bool(sorted(value) == sorted(encoded))
        case list(), list():
            return len(value) == len(encoded) and all(map(_is_part, value, encoded))
    return bool(value == encoded)
