"""Settings loader: reads `cashier.toml` and the files beside it, and checks them strictly.

An unknown key, a wrong type, a missing text or an unset variable is a fault with file, key and
remedy.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from cashier.domain.catalog import Catalog, Methods
from cashier.domain.ranking import Weights
from cashier.domain.routing_rules import Routing
from cashier.domain.wording import Texts
from cashier.settings.earlier_files import completed, lacking
from cashier.settings.schema import Configuration, ConfigurationError, Settings, TokenSettings, settings_faults
from cashier.settings.typed_table import typed
from cashier.settings.warnings import settings_warnings

SECRET_VARIABLE = "CASHIER_TOKEN_SECRET"  # noqa: S105  # the name of a variable, not a secret
# No setting is half as deep. Whatever reads the tables goes as deep as they are.
MOST_LEVELS = 32
_T = TypeVar("_T")


def load(
    path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ, *, server: Mapping[str, Any] | None = None
) -> Configuration:
    """Read `cashier.toml`, and `methods.toml`, `texts.toml`, `ranking.toml` and `routing.toml`
    beside it.

    Each of these files overrides single values of the packaged ones. `server` overrides values of
    `[server]`. Raises `ConfigurationError` with all faults.
    """
    file = Path(path)
    digest = file_digest(file)
    config = configuration(
        _merged(_read(file), {"server": dict(server)} if server else {}), str(file), file.parent, environ
    )
    return replace(config, digest=digest)


def file_digest(path: str | os.PathLike[str]) -> str:
    """The first 12 hexadecimal digits of the file's SHA-256, as `sha256sum` prints them.

    Empty if the file cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    except OSError:
        return ""


def configuration(
    table: Mapping[str, Any], source: str, beside: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Configuration:
    """As `load`, from a table in memory. `source` names it in faults.

    `beside`: the folder of the other files, and of adapters.
    """
    faults: list[str] = []
    settings = typed(table, Settings, source, faults, environ)
    methods = _layer("methods.toml", Methods, beside, faults)
    texts = _layer("texts.toml", Texts, beside, faults)
    weights = _layer("ranking.toml", Weights, beside, faults)
    routing = _layer("routing.toml", Routing, beside, faults)
    if settings is None or methods is None or texts is None or weights is None or routing is None:
        raise ConfigurationError(faults)
    catalog = Catalog(methods, texts, settings.consult.locale)
    faults += [f"{source}: {fault}" for fault in settings_faults(settings)]
    faults += [_with_file(fault, source, beside) for fault in (*catalog.faults(), *routing.faults())]
    if faults:
        raise ConfigurationError(faults)
    return Configuration(
        source=source,
        settings=settings,
        catalog=catalog,
        weights=weights,
        routing=routing,
        warnings=(*settings_warnings(settings), *lacking(packaged("texts.toml"), _own("texts.toml", beside), methods)),
        folder=beside and beside.absolute(),
    )


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
        # Some editors begin the file with a byte order mark.
        table = tomllib.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        remedy = "its link leads nowhere" if file.is_symlink() else "name one with --config"
        raise ConfigurationError([f"{file}: there is no such file; {remedy}"]) from None
    except OSError as error:
        raise ConfigurationError([f"{file}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([f"{file} is not UTF-8; save it in that encoding"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"{file} is not valid TOML: {error}"]) from None
    except RecursionError:
        raise ConfigurationError([_too_deep(file)]) from None
    except ValueError:  # of Python, before it reads thousands of digits
        raise ConfigurationError([f"{file} has a number with too many digits"]) from None
    if _is_deeper(table, MOST_LEVELS):
        raise ConfigurationError([_too_deep(file)])
    return table


def _too_deep(file: Path) -> str:
    return f"{file} has tables or lists in one another, more than {MOST_LEVELS} levels deep"


def _is_deeper(value: Any, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return parts is not None and (levels == 0 or any(_is_deeper(part, levels - 1) for part in parts))


def _origin(name: str, beside: Path | None) -> str:
    file = _file_beside(name, beside)
    return f"(packaged) {name}" if file is None else str(file)


def _with_file(fault: str, source: str, beside: Path | None) -> str:
    """The fault with its file. Catalog and routing faults begin with the stem of their file."""
    stem, _, text = fault.partition(": ")
    if stem in ("methods", "texts", "routing"):
        return f"{_origin(f'{stem}.toml', beside)}: {text}"
    return f"{source}: {fault}"


def _layer(name: str, wanted: type[_T], beside: Path | None, faults: list[str]) -> _T | None:
    """The packaged table, overridden value by value by the file beside the configuration."""
    try:
        defaults, own = packaged(name), _own(name, beside)
    except ConfigurationError as error:
        faults += error.faults
        return None
    if not own:
        as_packaged: _T = _packaged_as(name, wanted)  # type: ignore[arg-type]  # a type is hashable
        return as_packaged
    return typed(_merged(defaults, completed(name, defaults, own)), wanted, _origin(name, beside), faults)


@cache
def _packaged_as(name: str, wanted: type[_T]) -> _T:
    """The packaged table of that file without overrides, checked once."""
    faults: list[str] = []
    layer = typed(packaged(name), wanted, name, faults)
    if layer is None or faults:
        raise ConfigurationError(faults)
    return layer


def _file_beside(name: str, beside: Path | None) -> Path | None:
    """None if there is none. A link that leads nowhere is one: an override may not be left out."""
    file = None if beside is None else beside / name
    return file if file is not None and os.path.lexists(file) else None


def _own(name: str, beside: Path | None) -> dict[str, Any]:
    file = _file_beside(name, beside)
    return {} if file is None else _read(file)


@cache
def packaged(name: str) -> dict[str, Any]:
    """The packaged table of that file, read once and left as it is.

    `texts.toml` is packaged in one file per locale.
    """
    folder = resources.files("cashier").joinpath("defaults")
    if name != "texts.toml":
        return tomllib.loads(folder.joinpath(name).read_text("utf-8"))
    files = sorted(folder.joinpath("texts").iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): tomllib.loads(file.read_text("utf-8")) for file in files}


def _merged(defaults: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in overrides.items():
        default = merged.get(key)
        merged[key] = _merged(default, value) if isinstance(default, dict) and isinstance(value, dict) else value
    return merged
