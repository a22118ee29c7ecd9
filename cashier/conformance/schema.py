"""Fields of an answer against the struct that decodes it: every wrong field, not only the first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import orjson
from msgspec import Struct

from cashier.source_errors import SourceError
from cashier.sources.source import parse_or_error


def field_faults(value: Any, wanted: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The path and the fault of each field of a JSON value that `wanted`, a type, does not take.

    Faults quote no value. None at all does not yet mean that the whole can be decoded.
    """
    row = _row_type(wanted)
    if isinstance(wanted, type) and issubclass(wanted, Struct):
        yield from _struct_faults(value, wanted, path)
    elif row is not None and isinstance(value, list):
        for index, part in enumerate(value):
            yield from field_faults(part, row, f"{path}[{index}]")
        yield from _leaf_faults([], wanted, path) if not value else _length_faults(value, wanted, path)
    elif (inner := _optional(wanted)) is not None:
        yield from () if value is None else field_faults(value, inner, path)
    else:
        yield from _leaf_faults(value, wanted, path)


# Both take longer to make than a whole answer to check, and the types are few.
_fields = cache(msgspec.structs.fields)
_decoder = cache(msgspec.json.Decoder)


def without_indexes(path: str) -> str:
    """`cards[].last4` of `cards[3].last4`: the name of a field for people."""
    return re.sub(r"\[\d+\]", "[]", path)


def _struct_faults(value: Any, wanted: type[Struct], path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield path or "the answer", f"is {_json_type(value)}, expected an object"
        return
    sound = True
    for field in _fields(wanted):
        place = f"{path}.{field.encode_name}" if path else field.encode_name
        if field.encode_name in value:
            for fault in field_faults(value[field.encode_name], field.type, place):
                sound = False
                yield fault
        elif field.required:
            sound = False
            yield place, "is missing"
    if sound:
        yield from _own_rules(value, wanted, path)


def _own_rules(value: dict[str, Any], wanted: type[Struct], path: str) -> Iterator[tuple[str, str]]:
    """A rule between fields, which the struct checks itself. Its text quotes no value."""
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as fault:
        yield path or "the answer", str(fault).rpartition(" - at `")[0] or str(fault)


def _leaf_faults(value: Any, wanted: Any, path: str) -> Iterator[tuple[str, str]]:
    fault = parse_or_error(_decoder(wanted).decode, orjson.dumps(value))
    if isinstance(fault, SourceError):
        detail = fault.detail.removeprefix("not of the agreed shape: ")
        place, _, inner = detail.partition(" at $")
        words = f"; it has {', '.join(str(member.value) for member in wanted)}" if _is_enum(wanted) else ""
        yield f"{path}{inner}", f"is {_json_type(value)}: {place[:1].lower()}{place[1:]}{words}"


def _length_faults(value: list[Any], wanted: Any, path: str) -> Iterator[tuple[str, str]]:
    metas = [meta for meta in get_args(wanted)[1:] if isinstance(meta, msgspec.Meta)]
    for meta in metas:
        if meta.max_length is not None and len(value) > meta.max_length:
            yield path, f"has {len(value)} entries, at most {meta.max_length} are taken"


def _row_type(wanted: Any) -> Any:
    """The type of the rows of a list; None for any other type."""
    if get_origin(wanted) is Annotated:
        return _row_type(get_args(wanted)[0])
    if get_origin(wanted) in (tuple, list, frozenset):
        return get_args(wanted)[0]
    return None


def _optional(wanted: Any) -> Any:
    """The type beside None; None if there is none, or more than one."""
    if get_origin(wanted) not in (Union, UnionType):
        return None
    others = [option for option in get_args(wanted) if option is not type(None)]
    return others[0] if len(others) == 1 and len(get_args(wanted)) == 2 else None


def _is_enum(wanted: Any) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, Enum)


def _json_type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int():
            return "an integer"
        case float():
            return "a number with a fraction or an exponent"
        case str():
            return "a text"
        case list():
            return "a list"
    return "an object"
