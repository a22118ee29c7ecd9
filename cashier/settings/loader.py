"""Settings loader: read `cashier.toml` and the files beside it, check them strictly.

Nothing is guessed: an unknown key, a wrong type, a missing text or an unset variable stops the start and names file, key and remedy.
"""

from __future__ import annotations

import difflib
import os
import re
import secrets
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from cashier.domain.catalog import Catalog, Methods, Texts
from cashier.domain.ranking import Weights
from cashier.domain.routing_rules import Routing
from cashier.settings.schema import Configuration, ConfigurationError, Settings, TokenSettings, settings_faults

SECRET_VARIABLE = "CASHIER_TOKEN_SECRET"  # noqa: S105  # the name of a variable, not a secret
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_T = TypeVar("_T")


def load(
    path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ, *, server: Mapping[str, Any] | None = None
) -> Configuration:
    """Read `cashier.toml`, and from beside it `methods.toml`, `texts.toml`, `ranking.toml` and `routing.toml` where they exist, over the
    packaged ones.

    `server` takes the place of single values of `[server]`. Raises `ConfigurationError` with every fault that could be found.
    """
    file = Path(path)
    return configuration(
        _over(_read(file), {"server": dict(server)} if server else {}), str(file), file.parent, environ
    )


def configuration(
    table: Mapping[str, Any], source: str, beside: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Configuration:
    """The same from a table that is in memory already. `source` names it in faults."""
    faults: list[str] = []
    settings = _typed(_filled(table, source, environ, faults), Settings, source, faults)
    methods = _typed(_layered("methods.toml", beside), Methods, _origin("methods.toml", beside), faults)
    texts = _typed(_layered("texts.toml", beside), Texts, _origin("texts.toml", beside), faults)
    weights = _typed(_layered("ranking.toml", beside), Weights, _origin("ranking.toml", beside), faults)
    routing = _typed(_layered("routing.toml", beside), Routing, _origin("routing.toml", beside), faults)
    if settings is None or methods is None or texts is None or weights is None or routing is None:
        raise ConfigurationError(faults)
    catalog = Catalog(methods, texts, settings.consult.locale)
    faults += [f"{source}: {fault}" for fault in settings_faults(settings)]
    faults += [_placed(fault, source, beside) for fault in (*catalog.faults(), *routing.faults())]
    if faults:
        raise ConfigurationError(faults)
    return Configuration(source, settings, catalog, weights, routing)


def token_secrets(settings: TokenSettings, environ: Any = os.environ) -> tuple[tuple[str, ...], bool]:
    """The secrets to sign and verify with, and whether one had to be made up.

    Without any in the configuration the variable CASHIER_TOKEN_SECRET serves. Without that one is made up and put there, so that worker
    processes started from here share it; tokens signed with it end with this process.
    """
    if settings.secrets:
        return settings.secrets, False
    made_up = not environ.get(SECRET_VARIABLE)
    if made_up:
        environ[SECRET_VARIABLE] = secrets.token_urlsafe(32)
    return (environ[SECRET_VARIABLE],), made_up


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError([f"{file}: there is no such file; `cashier demo` runs without one"]) from None
    except OSError as fault:
        raise ConfigurationError([f"{file}: cannot be read: {fault.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([f"{file}: is not UTF-8"]) from None
    except tomllib.TOMLDecodeError as fault:
        raise ConfigurationError([f"{file}: is not TOML: {fault}"]) from None


def _origin(name: str, beside: Path | None) -> str:
    return str(beside / name) if beside is not None and (beside / name).exists() else f"(packaged) {name}"


def _placed(fault: str, source: str, beside: Path | None) -> str:
    """A fault of the catalog or the routing begins with what it is about: `methods`, `texts`, `routing`, or the settings."""
    about, _, said = fault.partition(": ")
    return (
        f"{_origin(f'{about}.toml', beside)}: {said}"
        if about in ("methods", "texts", "routing")
        else f"{source}: {fault}"
    )


def _layered(name: str, beside: Path | None) -> dict[str, Any]:
    """The packaged table, with the file beside the configuration over it, value by value."""
    packaged = tomllib.loads(resources.files("cashier").joinpath("defaults", name).read_text("utf-8"))
    return _over(packaged, _read(beside / name)) if beside is not None and (beside / name).exists() else packaged


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _filled(value: Any, where: str, environ: Mapping[str, str], faults: list[str]) -> Any:
    """Every `${NAME}` in a text replaced by the variable of that name."""
    if isinstance(value, Mapping):
        return {
            key: _filled(under, f"{where}: {key}" if ":" not in where else f"{where}.{key}", environ, faults)
            for key, under in value.items()
        }
    if isinstance(value, list):
        return [_filled(under, where, environ, faults) for under in value]
    if not isinstance(value, str):
        return value
    unset = [name for name in _VARIABLE.findall(value) if name not in environ]
    faults += [f"{where} speaks of ${{{name}}}, but the environment has no {name}; set it" for name in unset]
    return _VARIABLE.sub(lambda found: environ.get(found[1], ""), value)


def _typed(table: Any, wanted: type[_T], where: str, faults: list[str]) -> _T | None:
    """`table` as `wanted`, or None and the faults added."""
    strangers = [f"{where}: {fault}" for fault in _strangers(table, inspect.type_info(wanted), ())]
    faults += strangers
    try:
        return msgspec.convert(table, wanted)
    except msgspec.ValidationError as fault:
        if not strangers:
            faults.append(f"{where}: {_in_words(str(fault))}")
        return None


def _in_words(message: str) -> str:
    text, _, path = message.partition(" - at `")
    keys = path.rstrip("`").removeprefix("$").removeprefix(".").split(".")
    place = f"[{'.'.join(keys[:-1])}] {keys[-1]}" if len(keys) > 1 else keys[0]
    return f"{place}: {text[0].lower()}{text[1:]}" if place else text


def _strangers(value: Any, info: inspect.Type, path: tuple[str, ...]) -> Iterator[str]:
    """Keys that nothing reads, each with the nearest that something would."""
    if isinstance(info, inspect.UnionType):
        for option in info.types:
            yield from _strangers(value, option, path)
    elif isinstance(info, inspect.VarTupleType) and isinstance(value, list):
        for index, under in enumerate(value):
            yield from _strangers(under, info.item_type, (*path[:-1], f"{path[-1]}[{index}]"))
    elif isinstance(info, inspect.DictType) and isinstance(value, Mapping):
        known = [str(key.value) for key in info.key_type.cls] if isinstance(info.key_type, inspect.EnumType) else None
        for key, under in value.items():
            if known is not None and key not in known:
                yield _stranger(key, known, path)
            else:
                yield from _strangers(under, info.value_type, (*path, key))
    elif isinstance(info, inspect.StructType) and isinstance(value, Mapping):
        fields = {field.encode_name: field.type for field in info.fields}
        for key, under in value.items():
            if key in fields:
                yield from _strangers(under, fields[key], (*path, key))
            else:
                yield _stranger(key, list(fields), path)


def _stranger(key: str, known: list[str], path: tuple[str, ...]) -> str:
    near = [name for name in known if name.startswith(key) or key.startswith(name)] or difflib.get_close_matches(
        key, known, 1
    )
    place = f"[{'.'.join(path)}] " if path else ""
    return f"{place}unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")
