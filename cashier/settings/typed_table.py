"""Conversion of a TOML table to settings, with faults in the terms of the file.

A text that is one `${NAME}` also fills a number or a truth value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterator, Mapping
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import inspect

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TYPE_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
}
_T = TypeVar("_T")
# A description of all settings takes some milliseconds, at each reload and for each part.
_type_info = cache(inspect.type_info)


def typed(
    table: Any, wanted: type[_T], where: str, faults: list[str], environ: Mapping[str, str] | None = None
) -> _T | None:
    """`table` as `wanted`; None after adding its faults. `where` names the file in them.

    `environ`: replaces each `${NAME}` in texts.
    """
    info = _type_info(wanted)  # type: ignore[arg-type]  # a type is hashable
    known_faults: list[str] = []
    if environ is not None:
        table = _substituted(table, info, (), environ, known_faults)
    known_faults += [_unknown_key(*unknown) for unknown in unknown_keys(table, info, ())]
    faults += [f"{where}: {fault}" for fault in known_faults]
    try:
        return msgspec.convert(table, wanted)
    except msgspec.ValidationError:
        for path, text in _type_faults(table, wanted, ()):
            place = _place(path)
            if not any(fault.startswith((f"{place}:", f"{place} ")) for fault in known_faults):
                faults.append(f"{where}: {place}{text}")
        return None


def _substituted(
    value: Any, info: inspect.Type, path: tuple[str, ...], environ: Mapping[str, str], faults: list[str]
) -> Any:
    """The value with every `${NAME}` in its texts replaced by that environment variable."""
    if isinstance(value, Mapping):
        return {
            key: _substituted(part, _member(info, key), (*path, key), environ, faults) for key, part in value.items()
        }
    if isinstance(value, list):
        return [
            _substituted(part, _member(info, None), _item(path, index), environ, faults)
            for index, part in enumerate(value)
        ]
    if not isinstance(value, str):
        return value
    place = _place(path)
    names = _VARIABLE.findall(value)
    unusable = [name for name in names if name not in environ or not _is_utf8(environ[name])]
    if unusable:
        faults += [
            f"{place} refers to ${{{name}}}, which is not "
            + ("UTF-8 in the environment" if name in environ else "set in the environment; set it")
            for name in unusable
        ]
        return value
    text = _VARIABLE.sub(lambda match: environ[match[1]], value)
    scalars = _scalar_types(info)
    if not scalars or not _VARIABLE.fullmatch(value):
        return text
    scalar = _scalar(text.strip(), scalars)
    if scalar is None:
        # Without the text, which may be a secret.
        faults.append(f"{place}: {value} in the environment is not {' or '.join(scalars.values())}")
        return text
    return scalar


def _is_utf8(text: str) -> bool:
    """Python passes on other bytes of the environment as half characters, which nothing encodes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _scalar_types(info: inspect.Type) -> dict[type[inspect.Type], str]:
    """The number and truth types that `info` takes, in words. None where it takes a text."""
    words: dict[type[inspect.Type], str] = {
        inspect.BoolType: "true or false",
        inspect.IntType: "an integer",
        inspect.FloatType: "a number",
    }
    options = {type(option) for option in (info.types if isinstance(info, inspect.UnionType) else (info,))}
    if inspect.StrType in options:
        return {}
    return {option: text for option, text in words.items() if option in options}


def _scalar(text: str, types: Container[type[inspect.Type]]) -> bool | int | float | None:
    if inspect.BoolType in types and text in ("true", "false"):
        return text == "true"
    if inspect.IntType in types and re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        return int(text)
    if inspect.FloatType in types and re.fullmatch(r"[+-]?\d{1,18}(\.\d{1,18})?", text, re.ASCII):
        return float(text)
    return None


def _member(info: inspect.Type, key: str | None) -> inspect.Type:
    """The type of a key in a table, or with None of a list's items; `AnyType` if there is none."""
    match info:
        case inspect.UnionType():
            found = [_member(option, key) for option in info.types]
            return next((member for member in found if not isinstance(member, inspect.AnyType)), inspect.AnyType())
        case inspect.StructType() if key is not None:
            fields = {field.encode_name: field.type for field in info.fields}
            return fields.get(key, inspect.AnyType())
        case inspect.DictType() if key is not None:
            return info.value_type
        case inspect.VarTupleType() | inspect.FrozenSetType() if key is None:
            return info.item_type
    return inspect.AnyType()


def _type_faults(value: Any, wanted: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The place of each part that does not convert, or is missing, and what is wrong with it.

    Without keys that are unknown to a struct or an enumeration.
    """
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        message = str(error)
    else:
        return
    found = list(_faults_of_parts(value, wanted, path))
    yield from found
    text, _, place = message.partition(" - at `")
    if not (found or text.startswith("Object contains unknown field") or place.startswith("key` in")):
        yield path, f": {_in_words(text, inspect.type_info(wanted))}"


def _faults_of_parts(value: Any, wanted: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """As `_type_faults`, of the parts of a table or list."""
    for option in _options(wanted):
        origin, arguments = get_origin(option), get_args(option)
        if isinstance(value, Mapping) and isinstance(option, type) and issubclass(option, msgspec.Struct):
            for field in msgspec.structs.fields(option):
                inside = (*path, field.encode_name)
                if field.encode_name in value:
                    yield from _type_faults(value[field.encode_name], field.type, inside)
                elif field.required:
                    yield inside, " is missing"
        elif isinstance(value, Mapping) and origin is dict:
            for key, part in value.items():
                if not (isinstance(arguments[0], type) and issubclass(arguments[0], Enum)):
                    for _, text in _type_faults(key, arguments[0], ()):
                        yield (*path, key), f" as a key{text}"
                yield from _type_faults(part, arguments[1], (*path, key))
        elif isinstance(value, list) and origin in (tuple, frozenset):
            for index, part in enumerate(value):
                yield from _type_faults(part, arguments[0], _item(path, index))


def _options(wanted: Any) -> Iterator[Any]:
    """The types of a union, or the one type, without their bounds."""
    if get_origin(wanted) is Annotated:
        wanted = get_args(wanted)[0]
    if get_origin(wanted) in (Union, UnionType):
        for option in get_args(wanted):
            yield from _options(option)
    else:
        yield wanted


def _in_words(text: str, info: inspect.Type) -> str:
    if invalid := re.fullmatch(r"Invalid enum value '?(.*?)'?", text, re.DOTALL):
        valid = list(_valid_values(info))
        near = difflib.get_close_matches(invalid[1], valid, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{invalid[1]!r} is not one of {', '.join(valid)}{hint}"
    text = re.sub(r"`([\w |]+)`", lambda match: _type_words(match[1]), text)
    return (text[0].lower() + text[1:]).replace(">=", "≥").replace("<=", "≤")


def _type_words(types: str) -> str:
    return " or ".join(_TYPE_WORDS.get(name, name) for name in types.split(" | ") if name != "null")


def _valid_values(info: inspect.Type) -> Iterator[str]:
    match info:
        case inspect.UnionType():
            for option in info.types:
                yield from _valid_values(option)
        case inspect.LiteralType():
            yield from (str(value) for value in info.values)
        case inspect.EnumType():
            yield from (str(member.value) for member in info.cls)


def _place(path: tuple[str, ...]) -> str:
    """`[sources.card] transport`."""
    return f"[{'.'.join(path[:-1])}] {path[-1]}" if len(path) > 1 else "".join(path)


def _item(path: tuple[str, ...], index: int) -> tuple[str, ...]:
    """The path of an item of the list at this path."""
    return (*path[:-1], f"{path[-1]}[{index}]")


def unknown_keys(
    value: Any, info: inspect.Type, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """The place, name and known alternatives of each key that the schema does not have."""
    if isinstance(info, inspect.UnionType):
        for option in info.types:
            yield from unknown_keys(value, option, path)
    elif isinstance(info, inspect.VarTupleType) and isinstance(value, list):
        for index, part in enumerate(value):
            yield from unknown_keys(part, info.item_type, _item(path, index))
    elif isinstance(info, inspect.DictType) and isinstance(value, Mapping):
        known = [str(key.value) for key in info.key_type.cls] if isinstance(info.key_type, inspect.EnumType) else None
        for key, part in value.items():
            if known is not None and key not in known:
                yield path, key, known
            else:
                yield from unknown_keys(part, info.value_type, (*path, key))
    elif isinstance(info, inspect.StructType) and isinstance(value, Mapping):
        fields = {field.encode_name: field.type for field in info.fields}
        for key, part in value.items():
            if key in fields:
                yield from unknown_keys(part, fields[key], (*path, key))
            else:
                yield path, key, list(fields)


def nearest_key(key: str, known: list[str]) -> str | None:
    """The known key that `key` may stand for."""
    prefixed = [name for name in known if name.startswith(key) or key.startswith(name)]
    near = prefixed or difflib.get_close_matches(key, known, 1)
    return near[0] if near else None


def _unknown_key(path: tuple[str, ...], key: str, known: list[str]) -> str:
    near = nearest_key(key, known)
    place = f"[{'.'.join(path)}] " if path else ""
    hint = f"did you mean {near!r}?" if near else f"known keys are {', '.join(known)}"
    return f"{place}unknown key {key!r}; {hint}"
