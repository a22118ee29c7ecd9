"""An answer that comes again and again is read once, and never taken for another."""

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
    one = (
        '{"channel_id":"%s","kind":"WALLET","provider":"ALIPAY","provider_name":"Alipay","status":"OPEN","currencies":["CNY"],'
        '"min":{"currency":"CNY","value":1},"max":{"currency":"CNY","value":100},"cost_bps":10,"success_bps":9900,"terminals":["APP"]}'
    )
    return ('{"channels":[' + ",".join(one % each for each in channel_ids) + "]}").encode()


def ids(fact: Any) -> list[str]:
    return list(fact.by_id)


def test_the_same_bytes_in_answer_to_the_same_question_are_read_once() -> None:
    adapter = ParseCache(CHANNEL)
    first = adapter.parse(200, body("a"), CHINA)
    assert adapter.parse(200, bytes(bytearray(body("a"))), CHINA) is first


def test_other_bytes_are_read_anew_and_count_from_then_on() -> None:
    adapter = ParseCache(CHANNEL)
    adapter.parse(200, body("a"), CHINA)
    changed = adapter.parse(200, body("b"), CHINA)
    assert ids(changed) == ["b"]
    assert adapter.parse(200, body("b"), CHINA) is changed
    assert ids(adapter.parse(200, body("a"), CHINA)) == ["a"]


def test_the_same_bytes_in_answer_to_another_question_are_read_for_it() -> None:
    adapter = ParseCache(CHANNEL)
    assert adapter.parse(200, body("a"), CHINA) is not adapter.parse(200, body("a"), JAPAN)


def test_there_is_none_is_never_remembered_and_never_answered_from_memory() -> None:
    adapter = ParseCache(CHANNEL)
    adapter.parse(200, body("a"), CHINA)
    assert ids(adapter.parse(404, b"", CHINA)) == []
    assert ids(adapter.parse(200, body("a"), CHINA)) == ["a"]


def test_what_cannot_be_read_is_refused_every_time_and_leaves_the_last_good_answer() -> None:
    adapter = ParseCache(CHANNEL)
    good = adapter.parse(200, body("a"), CHINA)
    for _ in range(2):
        with pytest.raises(Garbled):
            adapter.parse(200, body("a", "a"), CHINA)
    assert adapter.parse(200, body("a"), CHINA) is good


def test_of_many_questions_the_oldest_is_forgotten() -> None:
    adapter = ParseCache(CHANNEL)
    first = adapter.parse(200, body("a"), CHINA)
    for number in range(MAX_ENTRIES):
        adapter.parse(200, body("a"), {"currency": "CNY", "country": str(number)})
    assert f"{MAX_ENTRIES} answers" in repr(adapter)
    assert adapter.parse(200, body("a"), CHINA) is not first


def test_it_asks_what_the_source_asks() -> None:
    assert ParseCache(CHANNEL).request(CHINA) == Request("/channels?currency=CNY&country=CN")
