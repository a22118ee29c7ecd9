"""Operators see the settings by an allow-list: what is not on it is hidden."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import msgspec.inspect

from cashier.settings.loader import configuration
from cashier.settings.schema import SERVICES, Settings
from cashier.telemetry.shown_settings import HIDDEN, SHOWN, shown_settings

URL = "http://127.0.0.1:9100"
# Secrets, and what may hold one: options are whatever an adapter takes, and addresses may have a
# key in their query. In the place of a variable's name, a secret may stand by mistake.
KEPT_BACK = {
    "auth.secret", "tokens.secrets", "sources.*.options", "pages.order_url", "pages.vault.url",
    "sources.*.auth.bearer.token_env", "sources.*.auth.oauth2.client_secret_env", "sources.*.auth.hmac.secret_env",
    "sources.*.auth.rsa2.private_key_env", "sources.*.auth.wechat_pay.private_key_env",
    "sources.*.auth.oauth2.token_url",
}  # fmt: skip


def shown(**table: Any) -> dict[str, str]:
    return shown_settings(configuration(table, "test").settings)


def keys_of(pattern: str, kind: msgspec.inspect.Type) -> Iterator[str]:
    """The patterns of all keys of a type, with `*` for the names of sources and merchants."""
    match kind:
        case msgspec.inspect.StructType():
            for field in kind.fields:
                name = "*" if pattern == "sources" else field.name
                yield from keys_of(f"{pattern}.{name}" if pattern else name, field.type)
        case msgspec.inspect.UnionType():
            for each in kind.types:
                yield from keys_of(pattern, each)
        case msgspec.inspect.DictType(value_type=msgspec.inspect.StructType() as value):
            yield from keys_of(f"{pattern}.*", value)
        case msgspec.inspect.NoneType():
            return
        case _:
            yield pattern


def test_every_key_is_shown_or_kept_back_on_purpose() -> None:
    every = set(keys_of("", msgspec.inspect.type_info(Settings)))
    assert every - SHOWN == KEPT_BACK
    assert not SHOWN - every, "the list names no key that does not exist"


def test_no_secret_is_shown() -> None:
    values = shown(
        auth={"mode": "jwt", "issuer": "i", "audience": "a", "secret": "s3cret" * 8},
        tokens={"secrets": ["t0ken" * 8]},
        cache={"shared": "redis://bob:pa55word@valkey.internal:6390/2"},
        sources={"order": {"url": URL, "adapter": "json", "options": {"api_key": "k3y"}}},
    )
    text = msgspec.json.encode(values).decode()
    assert not any(secret in text for secret in ("s3cret", "t0ken", "pa55word", "bob", "k3y"))
    assert values["auth.secret"] == values["tokens.secrets"] == values["sources.order.options"] == HIDDEN
    assert values["cache.shared"] == '"redis://valkey.internal:6390/2"'
    assert shown()["auth.secret"] == "not set"


def test_the_other_settings_are_shown_with_their_values() -> None:
    values = shown(
        sources={"order": {"url": [URL, "http://b:1"], "hedge": {"least_ms": 4}}, SERVICES[1]: {"url": URL}},
        merchants={"m_1": {"origins": ["https://shop.example"]}},
    )
    assert values["sources.order.url"] == f'["{URL}","http://b:1"]'
    assert values["sources.order.hedge.least_ms"] == "4"
    assert values["sources.order.breaker"] == "true"
    assert values["sources.engine.tries.attempts"] == "3"
    assert values["merchants.m_1.origins"] == '["https://shop.example"]'
    assert "sources.merchant.url" not in values


def test_the_printed_codes_of_merchants_are_shown() -> None:
    pages = {"order_url": "http://127.0.0.1:9100/orders?key=k3y", "codes": {"m_5": {"name": "S", "currency": "CNY"}}}
    values = shown(pages=pages)
    assert values["pages.codes.m_5.currency"] == '"CNY"'
    assert values["pages.order_url"] == HIDDEN


def test_the_url_of_a_list_is_shown_without_its_query() -> None:
    url = "https://nacos.internal:8848/nacos/v1/ns/instance/list"
    discover = {"http": f"{url}?serviceName=card&accessToken=t0ken", "format": "nacos"}
    values = shown(sources={"card": {"url": "https://card.internal", "discover": discover}})
    assert values["sources.card.discover.http"] == f'"{url}"'
    assert "t0ken" not in str(values)
