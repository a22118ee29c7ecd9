"""The parse cache: a repeated answer is decoded once, and never confused with another."""

from __future__ import annotations

from typing import Any

import pytest

from cashier.source_errors import Garbled
from cashier.sources.channel import CHANNEL
from cashier.sources.parse_cache import MAX_ENTRIES, ParseCache
from cashier.wire.transport import Request

CHINA = {"currency": "CNY", "country": "CN"}
JAPAN = {"currency": "JPY", "country": "JP"}


def body(*channel_ids: str) -> bytes:
    channel = (
        '{"channel_id":"%s","kind":"WALLET","provider":"ALIPAY","provider_name":"Alipay","status":"OPEN",'
        '"currencies":["CNY"],"min":{"currency":"CNY","value":1},"max":{"currency":"CNY","value":100},'
        '"cost_bps":10,"success_bps":9900,"terminals":["APP"]}'
    )
    return ('{"channels":[' + ",".join(channel % channel_id for channel_id in channel_ids) + "]}").encode()


def ids(fact: Any) -> list[str]:
    return list(fact.by_id)


def test_equal_bytes_for_the_same_request_are_decoded_once() -> None:
    adapter = ParseCache(CHANNEL)
    first = adapter.parse(200, body("a"), CHINA)
    assert adapter.parse(200, bytes(bytearray(body("a"))), CHINA) is first


def test_other_bytes_are_decoded_and_replace_the_entry() -> None:
    adapter = ParseCache(CHANNEL)
    adapter.parse(200, body("a"), CHINA)
    changed = adapter.parse(200, body("b"), CHINA)
    assert ids(changed) == ["b"]
    assert adapter.parse(200, body("b"), CHINA) is changed
    assert ids(adapter.parse(200, body("a"), CHINA)) == ["a"]


def test_equal_bytes_for_another_request_are_decoded_separately() -> None:
    adapter = ParseCache(CHANNEL)
    assert adapter.parse(200, body("a"), CHINA) is not adapter.parse(200, body("a"), JAPAN)


def test_a_404_is_neither_cached_nor_answered_from_the_cache() -> None:
    adapter = ParseCache(CHANNEL)
    adapter.parse(200, body("a"), CHINA)
    assert ids(adapter.parse(404, b"", CHINA)) == []
    assert ids(adapter.parse(200, body("a"), CHINA)) == ["a"]


def test_a_garbled_answer_is_refused_each_time_and_keeps_the_last_good_entry() -> None:
    adapter = ParseCache(CHANNEL)
    good = adapter.parse(200, body("a"), CHINA)
    for _ in range(2):
        with pytest.raises(Garbled):
            adapter.parse(200, body("a", "a"), CHINA)
    assert adapter.parse(200, body("a"), CHINA) is good


def test_the_oldest_entry_is_evicted() -> None:
    adapter = ParseCache(CHANNEL)
    first = adapter.parse(200, body("a"), CHINA)
    for number in range(MAX_ENTRIES):
        adapter.parse(200, body("a"), {"currency": "CNY", "country": str(number)})
    assert f"{MAX_ENTRIES} answers" in repr(adapter)
    assert adapter.parse(200, body("a"), CHINA) is not first


def test_it_makes_the_request_of_the_source() -> None:
    assert ParseCache(CHANNEL).request(CHINA) == Request("/channels?currency=CNY&country=CN")
