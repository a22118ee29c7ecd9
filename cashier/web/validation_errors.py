"""Why a body was refused: every field at fault, with what would be allowed. Pure, and only walked after the typed decoder said no.

The decoder stops at its first complaint and quotes what it was given. So a refused body is walked once more beside its type: all faults
are named, and no value is repeated.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from msgspec import inspect

from cashier.web.problem import FieldProblem

# Up to this many allowed values are listed in a message and compared with what came.
_FEW = 16


def field_problems(kind: inspect.Type, value: object, field: str = "", description: str = "") -> Iterator[FieldProblem]:
    """What is wrong with a decoded JSON value, by its msgspec type. `field` is the path so far, `description` the type's own."""
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=schema):
            yield from field_problems(inner, value, field, (schema or {}).get("description", description))
        case inspect.UnionType(types=types):
            if value is not None or not any(isinstance(each, inspect.NoneType) for each in types):
                some = next(each for each in types if not isinstance(each, inspect.NoneType))
                yield from field_problems(some, value, field, description)
        case inspect.StructType():
            yield from _object_faults(kind, value, field)
        case inspect.EnumType(cls=cls):
            yield from _choice_faults([member.value for member in cls], value, field)
        case inspect.LiteralType(values=values):
            yield from _choice_faults([str(each) for each in values], value, field)
        case inspect.VarTupleType():
            yield from _list_faults(kind, value, field)
        case inspect.StrType():
            yield from _text_faults(kind, value, field, description)
        case inspect.IntType():
            yield from _number_faults(kind, value, field)


def _object_faults(kind: inspect.StructType, value: object, field: str) -> Iterator[FieldProblem]:
    if not isinstance(value, dict):
        yield _wrong_type(field, "an object", value)
        return
    for part in kind.fields:
        path = f"{field}.{part.encode_name}" if field else part.encode_name
        if part.encode_name in value:
            yield from field_problems(part.type, value[part.encode_name], path)
        elif part.required:
            yield FieldProblem(path, "MISSING", "is required")


def _list_faults(kind: inspect.VarTupleType, value: object, field: str) -> Iterator[FieldProblem]:
    if not isinstance(value, list):
        yield _wrong_type(field, "an array", value)
    elif kind.max_length is not None and len(value) > kind.max_length:
        yield FieldProblem(field, "TOO_LONG", f"must have at most {kind.max_length} items")
    else:
        for index, each in enumerate(value):
            yield from field_problems(kind.item_type, each, f"{field}[{index}]")


def _choice_faults(allowed: Sequence[str], value: object, field: str) -> Iterator[FieldProblem]:
    if not isinstance(value, str):
        yield _wrong_type(field, "a string", value)
    elif value not in allowed:
        few = len(allowed) <= _FEW
        listed = ", ".join(allowed) if few else f"{', '.join(allowed[:3])} … ({len(allowed)} values)"
        nearest = _nearest(value, allowed) if few else _same_in_capitals(value, allowed)
        hint = f"; did you mean {nearest}?" if nearest else ""
        yield FieldProblem(field, "UNKNOWN_VALUE", f"must be one of {listed}{hint}")


def _nearest(value: str, allowed: Sequence[str]) -> str | None:
    # What is far longer than any name is not a slip of the pen, and comparing it would cost by its length.
    if len(value) > 40:
        return None
    close = difflib.get_close_matches(value.upper().replace("-", "_").replace(" ", "_"), allowed, n=1)
    return close[0] if close else None


def _same_in_capitals(value: str, allowed: Sequence[str]) -> str | None:
    capitals = value[:40].strip().upper()
    return capitals if capitals in allowed else None


def _text_faults(kind: inspect.StrType, value: object, field: str, description: str) -> Iterator[FieldProblem]:
    if not isinstance(value, str):
        yield _wrong_type(field, "a string", value)
    elif kind.min_length is not None and len(value) < kind.min_length:
        yield FieldProblem(field, "TOO_SHORT", f"must have at least {_characters(kind.min_length)}")
    elif kind.max_length is not None and len(value) > kind.max_length:
        yield FieldProblem(field, "TOO_LONG", f"must have at most {_characters(kind.max_length)}")
    elif kind.pattern is not None and re.search(kind.pattern, value) is None:
        yield FieldProblem(
            field, "BAD_FORMAT", f"must be {description}" if description else f"must match {kind.pattern}"
        )


def _number_faults(kind: inspect.IntType, value: object, field: str) -> Iterator[FieldProblem]:
    if isinstance(value, float):
        yield FieldProblem(field, "WRONG_TYPE", "must be a whole number without fraction or exponent")
    elif isinstance(value, bool) or not isinstance(value, int):
        yield _wrong_type(field, "a whole number", value)
    elif (kind.ge is not None and value < kind.ge) or (kind.le is not None and value > kind.le):
        yield FieldProblem(field, "OUT_OF_RANGE", f"must be from {kind.ge} to {kind.le}")


def _characters(count: int) -> str:
    return "1 character" if count == 1 else f"{count} characters"


def _wrong_type(field: str, wanted: str, value: object) -> FieldProblem:
    return FieldProblem(field, "WRONG_TYPE", f"must be {wanted}, not {_called(value)}")


def _called(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
