"""Settings loader: reads `cashier.toml` and the files beside it, and checks them strictly.

An unknown key, a wrong type, a missing text or an unset variable is a fault with file, key and
remedy.
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
    """Read `cashier.toml`, and `methods.toml`, `texts.toml`, `ranking.toml` and `routing.toml`
    beside it.

    Each of these files overrides single values of the packaged one. `server` overrides values of
    `[server]`. Raises `ConfigurationError` with all faults.
    """
    file = Path(path)
    return configuration(
        _merged(_read(file), {"server": dict(server)} if server else {}), str(file), file.parent, environ
    )


def configuration(
    table: Mapping[str, Any], source: str, beside: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Configuration:
    """As `load`, from a table in memory. `source` names it in faults.

    `beside`: the folder of the other files.
    """
    faults: list[str] = []
    settings = _typed(_substituted(table, source, environ, faults), Settings, source, faults)
    methods = _typed(_layered("methods.toml", beside), Methods, _origin("methods.toml", beside), faults)
    texts = _typed(_layered("texts.toml", beside), Texts, _origin("texts.toml", beside), faults)
    weights = _typed(_layered("ranking.toml", beside), Weights, _origin("ranking.toml", beside), faults)
    routing = _typed(_layered("routing.toml", beside), Routing, _origin("routing.toml", beside), faults)
    if settings is None or methods is None or texts is None or weights is None or routing is None:
        raise ConfigurationError(faults)
    catalog = Catalog(methods, texts, settings.consult.locale)
    faults += [f"{source}: {fault}" for fault in settings_faults(settings)]
    faults += [_with_file(fault, source, beside) for fault in (*catalog.faults(), *routing.faults())]
    if faults:
        raise ConfigurationError(faults)
    return Configuration(source=source, settings=settings, catalog=catalog, weights=weights, routing=routing)


def token_secrets(settings: TokenSettings, environ: Any = os.environ) -> tuple[tuple[str, ...], bool]:
    """The secrets that sign and verify tokens, and whether one was generated.

    Without secrets in the configuration the variable CASHIER_TOKEN_SECRET is used. Where it is
    unset, a secret is generated and stored there, so that worker processes inherit it; its tokens
    are void after this process.
    """
    if settings.secrets:
        return settings.secrets, False
    generated = not environ.get(SECRET_VARIABLE)
    if generated:
        environ[SECRET_VARIABLE] = secrets.token_urlsafe(32)
    return (environ[SECRET_VARIABLE],), generated


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError([f"{file}: there is no such file; name one with --config"]) from None
    except OSError as error:
        raise ConfigurationError([f"{file}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([f"{file} is not UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"{file} is not valid TOML: {error}"]) from None


def _origin(name: str, beside: Path | None) -> str:
    return str(beside / name) if beside is not None and (beside / name).exists() else f"(packaged) {name}"


def _with_file(fault: str, source: str, beside: Path | None) -> str:
    """The fault with its file. Catalog and routing faults begin with the stem of their file."""
    stem, _, text = fault.partition(": ")
    if stem in ("methods", "texts", "routing"):
        return f"{_origin(f'{stem}.toml', beside)}: {text}"
    return f"{source}: {fault}"


def _layered(name: str, beside: Path | None) -> dict[str, Any]:
    """The packaged table, overridden value by value by the file beside the configuration."""
    packaged = tomllib.loads(resources.files("cashier").joinpath("defaults", name).read_text("utf-8"))
    return _merged(packaged, _read(beside / name)) if beside is not None and (beside / name).exists() else packaged


def _merged(defaults: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in overrides.items():
        default = merged.get(key)
        merged[key] = _merged(default, value) if isinstance(default, dict) and isinstance(value, dict) else value
    return merged


def _substituted(value: Any, where: str, environ: Mapping[str, str], faults: list[str]) -> Any:
    """The value with every `${NAME}` in its texts replaced by that environment variable."""
    if isinstance(value, Mapping):
        return {
            key: _substituted(part, f"{where}: {key}" if ":" not in where else f"{where}.{key}", environ, faults)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_substituted(part, where, environ, faults) for part in value]
    if not isinstance(value, str):
        return value
    unset = [name for name in _VARIABLE.findall(value) if name not in environ]
    faults += [f"{where} refers to ${{{name}}}, but {name} is not set in the environment; set it" for name in unset]
    return _VARIABLE.sub(lambda match: environ.get(match[1], ""), value)


def _typed(table: Any, wanted: type[_T], where: str, faults: list[str]) -> _T | None:
    """`table` as `wanted`; None after adding its faults."""
    unknown = [f"{where}: {fault}" for fault in _unknown_keys(table, inspect.type_info(wanted), ())]
    faults += unknown
    try:
        return msgspec.convert(table, wanted)
    except msgspec.ValidationError as error:
        if not unknown:
            faults.append(f"{where}: {_with_key(str(error))}")
        return None


def _with_key(message: str) -> str:
    """A msgspec message with its place in TOML terms: `[consult] deadline_ms: expected …`."""
    text, _, path = message.partition(" - at `")
    keys = path.rstrip("`").removeprefix("$").removeprefix(".").split(".")
    place = f"[{'.'.join(keys[:-1])}] {keys[-1]}" if len(keys) > 1 else keys[0]
    return f"{place}: {text[0].lower()}{text[1:]}" if place else text


def _unknown_keys(value: Any, info: inspect.Type, path: tuple[str, ...]) -> Iterator[str]:
    """A fault for each key that the schema does not have, with the nearest key that it has."""
    if isinstance(info, inspect.UnionType):
        for option in info.types:
            yield from _unknown_keys(value, option, path)
    elif isinstance(info, inspect.VarTupleType) and isinstance(value, list):
        for index, part in enumerate(value):
            yield from _unknown_keys(part, info.item_type, (*path[:-1], f"{path[-1]}[{index}]"))
    elif isinstance(info, inspect.DictType) and isinstance(value, Mapping):
        known = [str(key.value) for key in info.key_type.cls] if isinstance(info.key_type, inspect.EnumType) else None
        for key, part in value.items():
            if known is not None and key not in known:
                yield _unknown_key(key, known, path)
            else:
                yield from _unknown_keys(part, info.value_type, (*path, key))
    elif isinstance(info, inspect.StructType) and isinstance(value, Mapping):
        fields = {field.encode_name: field.type for field in info.fields}
        for key, part in value.items():
            if key in fields:
                yield from _unknown_keys(part, fields[key], (*path, key))
            else:
                yield _unknown_key(key, list(fields), path)


def _unknown_key(key: str, known: list[str], path: tuple[str, ...]) -> str:
    prefixed = [name for name in known if name.startswith(key) or key.startswith(name)]
    near = prefixed or difflib.get_close_matches(key, known, 1)
    place = f"[{'.'.join(path)}] " if path else ""
    hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
    return f"{place}unknown key {key!r}; {hint}"
