"""The URL of the shared cache."""

from __future__ import annotations

import pytest
from redis.asyncio import SSLConnection

from cashier.fanout.l2.valkey_backend import ValkeySettings, client_for
from cashier.fanout.l2.valkey_url import ValkeyAddress, parse_valkey_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", ValkeyAddress("cache", 6379, 0, None, None, False)),
        ("redis://cache:7000/3", ValkeyAddress("cache", 7000, 3, None, None, False)),
        ("redis://:p%40ss@cache/", ValkeyAddress("cache", 6379, 0, None, "p@ss", False)),
        ("rediss://me:secret@[::1]:7000/1", ValkeyAddress("::1", 7000, 1, "me", "secret", True)),
    ],
)
def test_a_url_is_parsed_into_an_address(url: str, expected: ValkeyAddress) -> None:
    assert parse_valkey_url(url) == expected


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("", "neither redis://"),
        ("cache:6379", "neither redis://"),
        ("http://:secret@cache", "neither redis://"),
        ("redis://", "no host"),
        ("redis://:secret@:6379", "no host"),
        ("redis://:secret@cache:port", "host or port"),
        ("redis://:secret@cache:70000", "host or port"),
        ("redis://cache:0", "port is 0"),
        ("redis://:secret@cache/name", "database is not a number"),
        ("redis://cache/0?db=1", "after ? or #"),
        ("redis://secret@cache", "user without a password"),
    ],
)
def test_an_invalid_url_is_explained_without_its_password(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match="the URL of the shared cache is invalid") as raised:
        parse_valkey_url(url)
    assert wrong in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_password_is_not_shown() -> None:
    assert repr(parse_valkey_url("rediss://me:secret@cache/2")) == "rediss://cache:6379/2"


def test_the_scheme_rediss_means_tls() -> None:
    pools = [
        client_for(parse_valkey_url(url), ValkeySettings()).connection_pool
        for url in ("rediss://cache", "redis://cache")
    ]
    assert [pool.connection_class is SSLConnection for pool in pools] == [True, False]
