"""Invalid and extreme settings: one line of error for each, no traceback, no failing source."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from cashier.asgi import configured_app
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.settings.loader import MOST_LEVELS, configuration, load
from cashier.settings.schema import SERVICES, ConfigurationError, Settings

URL = "http://127.0.0.1:9100"
DEEP = MOST_LEVELS + 1


@pytest.mark.parametrize("name", ["cashier.toml", "methods.toml", "texts.toml", "ranking.toml", "routing.toml"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("a = " + "[" * levels + "]" * levels, "levels deep", id=f"{levels} lists")
        for levels in (DEEP, 5_000)
    ]
    + [
        pytest.param("a = " + "{a = " * levels + "1" + "}" * levels, "levels deep", id=f"{levels} inline tables")
        for levels in (DEEP, 5_000)
    ]
    + [
        pytest.param(f"[{'.'.join('a' * levels)}]\nb = 1", "levels deep", id=f"{levels} dotted")
        for levels in (DEEP, 5_000)
    ]
    + [
        pytest.param(f"a = {'9' * 5_000}", "too many digits", id="digits"),
        pytest.param("a = '\x00'", "not valid TOML", id="NUL"),
    ],
)
def test_a_file_that_no_one_can_read_through_is_a_fault(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / "cashier.toml").write_text("")
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path / "cashier.toml", {})
    (fault,) = raised.value.faults
    assert says in fault
    assert fault.startswith(str(tmp_path / name))


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ({"telemetry": {"service_name": "${ODD}"}}, b"caf\xe9"),
        ({"auth": {"issuer": "https://${ODD}/"}}, b"\xff"),
        ({"server": {"port": "${ODD}"}}, b"80\xff"),
        ({"tokens": {"secrets": ["${ODD}"]}}, b"\xfe" * 40),
        ({"merchants": {"m_1": {"origins": ["${ODD}"]}}}, b"https://\x80"),
        ({"sources": {"card": {"url": URL, "adapter": "x", "options": {"key": "${ODD}"}}}}, b"\xed\xa0\x80"),
    ],
)
def test_a_variable_that_is_not_utf8_is_named_without_its_value(section: dict[str, Any], value: bytes) -> None:
    # As `os.environ` has it.
    environ = {"ODD": value.decode("utf-8", "surrogateescape")}
    with pytest.raises(ConfigurationError) as raised:
        configuration(section, "cashier.toml", environ=environ)
    fault = raised.value.faults[0]
    assert re.fullmatch(
        r"cashier\.toml: \[[\w.]+\] \w+(\[0\])? refers to \$\{ODD\}, which is not UTF-8 in the environment", fault
    )


def patterns(info: inspect.Type, path: str = "") -> Iterator[tuple[str, str]]:
    """The place and the pattern of each text of the settings that has one."""
    match info:
        case inspect.StrType(pattern=str(pattern)):
            yield path, pattern
        case inspect.StructType():
            for field in info.fields:
                yield from patterns(field.type, f"{path}.{field.encode_name}")
        case inspect.UnionType():
            for option in info.types:
                yield from patterns(option, path)
        case inspect.DictType():
            yield from patterns(info.key_type, path)
            yield from patterns(info.value_type, path)
        case inspect.VarTupleType():
            yield from patterns(info.item_type, path)


def test_no_pattern_lets_a_line_break_at_the_end_pass() -> None:
    """`$` matches before it, and a file or variable often ends in one."""
    found = dict(patterns(inspect.type_info(Settings)))
    assert ".operations.hosts" in found
    assert ".sources.card.batch.path" in found
    assert [(path, pattern) for path, pattern in found.items() if not pattern.endswith(r"(?![\s\S])")] == []


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "#part", "\u00e9", "\u2028"])
@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("operations", "hosts"), ["ops.example.com"]),
        (("operations", "sandbox"), "http://127.0.0.1:9100"),
        (("sources", "card", "batch", "path"), "/batch/cards"),
        (("sources", "card", "auth", "hmac", "key_id"), "cashier"),
        (("sources", "card", "auth", "hmac", "secret_env"), "CARD_HMAC"),
    ],
    ids=lambda value: value if isinstance(value, str) else ".".join(value),
)
def test_a_text_with_another_end_is_refused(keys: tuple[str, ...], value: str | list[str], end: str) -> None:
    def table(text: str | list[str]) -> dict[str, Any]:
        made: dict[str, Any] = {"sources": {name: {"url": URL} for name in SOURCE_NAMES}}
        made["sources"]["card"]["auth"] = {"hmac": {"key_id": "k", "secret_env": "E"}}
        made["sources"]["card"]["batch"] = {"path": "/batch"}
        inner = made
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = text
        return made

    configuration(table(value), "cashier.toml", environ={})
    with pytest.raises(ConfigurationError):
        configuration(table(value + end if isinstance(value, str) else [value[0] + end]), "cashier.toml", environ={})


@pytest.mark.parametrize("name", ["\0.svg", "a\0.png", "\ud800.svg"])
def test_a_name_that_no_file_can_have_is_a_fault(name: str) -> None:
    table = {"pages": {"enabled": True, "brand": {"logo": name}}}
    with pytest.raises(ConfigurationError, match=r"\[pages\.brand\] logo: .* cannot be read"):
        configuration(table, "cashier.toml", environ={})


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("https://card.internal", {"http1": {"ca_file": "${CA}"}}),
        ("https://card.internal", {"transport": "aiohttp", "aiohttp": {"ca_file": "${CA}"}}),
        ("http://card.internal", {"discover": {"http": "https://list.internal/", "ca_file": "${CA}"}}),
        (
            "http://card.internal",
            {
                "auth": {
                    "oauth2": {"token_url": "https://t", "client_id": "c", "client_secret_env": "PATH", "ca_file": ""}
                }
            },
        ),
    ],
)
def test_an_empty_file_of_authorities_does_not_mean_those_of_the_system(url: str, settings: dict[str, Any]) -> None:
    sources: dict[str, Any] = {name: {"url": URL} for name in SOURCE_NAMES}
    config = configuration(
        {"sources": {**sources, "card": {"url": url, **settings}}}, "cashier.toml", environ={"CA": ""}
    )
    with pytest.raises(ConfigurationError, match=r"\[sources\.card\] ca_file '': it names no file"):
        Cashier(config=config)


# By table: what only building the parts finds, and the key that its fault names.
UNUSABLE = {
    "sources.card": ({"url": "https://card", "http1": {"ca_file": "/nowhere/ca"}}, "ca_file"),
    "sources.channel": (
        {"url": "https://channel", "transport": "aiohttp", "aiohttp": {"client_cert_file": "/nowhere/crt"}},
        "client_cert_file",
    ),
    "sources.quota": ({"url": "local:nowhere:asked", "transport": "local"}, "nowhere"),
    "sources.risk": ({"url": "https://risk", "http1": {"client_key_file": "/nowhere/key"}}, "client_key_file"),
    "sources.engine": ({"url": "https://engine", "http1": {"ca_file": "/nowhere/ca"}}, "ca_file"),
    "sources.acquirer": ({"url": "https://acquirer", "adapter": "nowhere"}, "nowhere"),
    "cache": ({"shared": "redis://valkey/first"}, "shared"),
}


@pytest.mark.parametrize("broken", [*combinations(UNUSABLE, 2), tuple(UNUSABLE)], ids=" and ".join)
def test_all_parts_that_cannot_be_built_are_named_at_once(broken: tuple[str, ...]) -> None:
    sources: dict[str, Any] = {name: {"url": URL} for name in (*SOURCE_NAMES, *SERVICES)}
    tables: dict[str, Any] = {"sources": sources}
    for name in broken:
        (sources if name.startswith("sources.") else tables)[name.removeprefix("sources.")] = UNUSABLE[name][0]
    with pytest.raises(ConfigurationError) as raised:
        Cashier(config=configuration(tables, "cashier.toml", environ={}))
    faults = {next(name for name in UNUSABLE if f"[{name}]" in fault): fault for fault in raised.value.faults}
    assert len(faults) == len(raised.value.faults) == len(broken)
    for name in broken:
        assert UNUSABLE[name][1] in faults[name]


def test_what_each_step_of_a_start_finds_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan, the parts, the keys of callers; a start takes these steps in turn."""
    monkeypatch.setenv("CASHIER_TOKEN_SECRET", "t" * 32)
    lines = [
        '[auth]\nmode = "jwt"\nissuer = "i"\naudience = "a"\njwks_file = "/nowhere/jwks.json"\n',
        '[consult]\nreserve_ms = 1\n[cache]\nshared = "redis://valkey/first"\n[operations]\nenabled = false\n',
        *(f'[sources.{name}]\nurl = "{URL}"\n' for name in SOURCE_NAMES if name != "card"),
        '[sources.card]\nurl = "https://card"\nhttp1 = { ca_file = "/nowhere/ca" }\n',
    ]
    (tmp_path / "cashier.toml").write_text("".join(lines))
    with pytest.raises(ConfigurationError) as raised:
        configured_app(str(tmp_path / "cashier.toml"))
    faults = [fault.removeprefix(f"{tmp_path}/cashier.toml: ") for fault in raised.value.faults]
    starts = ("[auth] jwks_file: ", "[consult] reserve_ms", "[cache] shared", "[sources.card] ca_file")
    assert len(faults) == len(starts)
    for fault, start in zip(faults, starts, strict=True):
        assert fault.startswith(start)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**30, 2**63, 0, -1])
@pytest.mark.parametrize(
    ("transport", "group", "key"),
    [
        ("http1", "http1", "idle_s"),
        ("aiohttp", "aiohttp", "idle_s"),
        ("http1", "breaker", "open_s"),
        ("http1", "breaker", "open_max_s"),
    ],
)
def test_a_time_without_an_end_is_refused(transport: str, group: str, key: str, value: float) -> None:
    """No timer takes it, and a breaker would stay open for ever."""
    card = {"url": URL, "transport": transport, group: {key: value}}
    with pytest.raises(ConfigurationError, match=key):
        configuration({"sources": {"card": card}}, "cashier.toml", environ={})
