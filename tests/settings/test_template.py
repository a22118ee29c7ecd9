"""The template of `cashier init`: it has every key, and what it comments out are the defaults."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, inspect, to_builtins

from cashier.settings.loader import load
from cashier.settings.schema import Settings
from cashier.settings.typed_table import typed
from tests.settings.test_documentation import STRUCTS, structs

TEMPLATE = files("cashier").joinpath("defaults", "cashier.toml").read_text("utf-8")
EXAMPLE = Path(__file__).parent.parent.parent / "config/cashier.toml"
# Keys whose commented value is an example, because the default is empty or another key excludes it.
EXAMPLES = {
    "issuer", "audience", "jwks_file", "secret", "secrets", "user_claim", "order_claim", "merchant_claim", "origins",
    "url", "adapter", "options", "cache", "ca_file", "client_cert_file", "client_key_file", "fresh_s", "stale_s",
    "error_s", "negative_s", "path", "attempt_ms", "public_url", "trusted_proxies",
    "order_url", "logo", "top_up", "bind_card", "update_card", "name", "currency",
    "discover", "dns", "srv", "file", "http", "format", "nameserver", "token_file",
    "token_env", "token_url", "client_id", "client_secret_file", "client_secret_env", "key_id",
    "secret_file", "secret_env", "app_id", "private_key_file", "private_key_env", "alipay_public_key_file", "mchid",
    "serial_no", "platform_keys",
}  # fmt: skip


def enabled() -> dict[str, Any]:
    """The template with every key set. The second of two values of one key stays out."""
    seen: set[tuple[str, str]] = set()
    lines, table = [], ""
    for line in TEMPLATE.splitlines():
        text = re.sub(r"^#(?=[a-z0-9_]+ = |\[)", "", line)
        if text.startswith("["):
            table = text
        key = (table, text.partition(" = ")[0])
        if key not in seen or " = " not in text:
            lines.append(text)
        if " = " in text:
            seen.add(key)
    return tomllib.loads("\n".join(lines))


def collect_keys(value: Any, info: inspect.Type, seen: dict[str, set[str]]) -> None:
    """Collect in `seen` the keys that each settings struct has somewhere in `value`."""
    match info:
        case inspect.StructType() if isinstance(value, dict):
            keys = seen.setdefault(info.cls.__name__, set())
            for field in info.fields:
                if field.encode_name in value:
                    keys.add(field.encode_name)
                    collect_keys(value[field.encode_name], field.type, seen)
        case inspect.UnionType():
            for option in info.types:
                collect_keys(value, option, seen)
        case inspect.DictType() if isinstance(value, dict):
            for part in value.values():
                collect_keys(part, info.value_type, seen)


def test_the_example_configuration_is_the_template() -> None:
    assert EXAMPLE.read_text("utf-8") == TEMPLATE


def test_the_template_is_valid_as_it_is() -> None:
    assert load(EXAMPLE).warnings == ()


def test_the_template_with_every_key_set_is_valid_in_type() -> None:
    faults: list[str] = []
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", TEMPLATE), "s" * 32)
    assert typed(enabled(), Settings, "template", faults, environ) is not None, faults


def structs_of(info: inspect.Type) -> Iterator[str]:
    return (struct.cls.__name__ for struct in structs(info))


SETTINGS_STRUCTS = sorted(set(structs_of(inspect.type_info(Settings))))


@pytest.mark.parametrize("name", SETTINGS_STRUCTS)
def test_the_template_has_every_key(name: str) -> None:
    seen: dict[str, set[str]] = {}
    collect_keys(enabled(), inspect.type_info(Settings), seen)
    assert {field.encode_name for field in STRUCTS[name].fields} == seen.get(name)


def test_the_commented_values_are_the_defaults() -> None:
    for line in TEMPLATE.splitlines():
        match = re.match(r"^#([a-z0-9_]+) = (.*?)(?:\s+#.*)?$", line)
        if match is None or match[1] in EXAMPLES:
            continue
        value = tomllib.loads(f"{match[1]} = {match[2]}")[match[1]]
        assert value in defaults_of(match[1]), match[1]


def defaults_of(key: str) -> list[Any]:
    """The defaults of `key` in all settings structs."""
    return [
        to_builtins(field.default) if isinstance(field.default, Struct) else field.default
        for name in SETTINGS_STRUCTS
        for field in STRUCTS[name].fields
        if field.encode_name == key
    ]
