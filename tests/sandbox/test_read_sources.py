"""The read-only sources: parameters by name, checked in one way."""

from __future__ import annotations

import pytest

from cashier.sandbox.read_sources import SourceReader
from cashier.sandbox.source_table import SOURCE_READS
from cashier.sandbox.world import World

VALID: dict[str, object] = {
    "order_id": "o_1001",
    "merchant_id": "m_1",
    "user_id": "u_1",
    "currency": "CNY",
    "country": "CN",
    "value": "12800",
}
INVALID: list[tuple[str, str, object]] = [
    ("order", "order_id", ""),
    ("acquirer", "order_id", "o 1001"),
    ("merchant", "merchant_id", "m" * 65),
    ("member", "user_id", None),
    ("card", "user_id", 1.5),
    ("quota", "user_id", 1),
    ("balance", "user_id", "u/1"),
    ("marketing", "merchant_id", None),
    ("marketing", "currency", "cny"),
    ("marketing", "value", "-1"),
    ("marketing", "value", True),
    ("marketing", "value", str(2**53)),
    ("channel", "currency", "CN"),
    ("channel", "country", "CHN"),
    ("quota", "currency", None),
]


@pytest.fixture
def reader(world: World) -> SourceReader:
    return SourceReader(world)


@pytest.mark.parametrize("source", SOURCE_READS)
def test_valid_parameters_find_the_named_records(reader: SourceReader, source: str) -> None:
    assert reader.look_up(source, VALID).status == 200


@pytest.mark.parametrize(("source", "field", "value"), INVALID)
def test_an_invalid_parameter_is_named_in_a_400(reader: SourceReader, source: str, field: str, value: object) -> None:
    answer = reader.look_up(source, VALID | {field: value})
    assert (answer.status, answer.body["field"]) == (400, field)


def test_quotas_and_promotions_are_those_of_the_currency(reader: SourceReader) -> None:
    assert reader.look_up("quota", VALID | {"currency": "JPY"}).body == {"user_id": "u_1", "quotas": []}
    assert reader.look_up("marketing", VALID | {"currency": "JPY"}).body["promotions"] == []


def test_a_market_without_channels_is_an_empty_list(reader: SourceReader) -> None:
    assert reader.look_up("channel", VALID | {"country": "JP"}).body == {"channels": []}


def test_a_batch_answers_each_request_as_a_single_call_would(reader: SourceReader) -> None:
    requests = [{"user_id": "u_1"}, {"user_id": "u_5"}, {"user_id": "u_100001"}, {"user_id": ""}]
    answers = reader.look_up_many("card", {"requests": requests}).body["answers"]
    assert answers[0] == {"ok": reader.look_up("card", requests[0]).body}
    assert answers[1] == {"error": {"status": 404, "code": "NOT_FOUND"}}
    assert answers[2] == {"ok": reader.look_up("card", requests[2]).body}
    assert answers[3] == {"error": {"status": 400, "code": "MALFORMED"}}


@pytest.mark.parametrize("source", ["order", "merchant"])
def test_orders_and_merchants_can_be_read_in_batches(reader: SourceReader, source: str) -> None:
    name = f"{source}_id"
    requests = [{name: "o_404"}, {name: VALID[name]}, {}]
    answers = reader.look_up_many(source, {"requests": requests}).body["answers"]
    assert SOURCE_READS[source].batch == f"/batch/{source}s"
    assert answers == [
        {"error": {"status": 404, "code": "NOT_FOUND"}},
        {"ok": reader.look_up(source, VALID).body},
        {"error": {"status": 400, "code": "MALFORMED"}},
    ]


def test_a_batch_takes_amounts_as_numbers(reader: SourceReader) -> None:
    request = {"user_id": "u_1", "merchant_id": "m_1", "currency": "CNY", "value": 12800}
    assert "ok" in reader.look_up_many("marketing", {"requests": [request]}).body["answers"][0]


@pytest.mark.parametrize("body", [None, [], {}, {"requests": {}}, {"requests": ["u_1"]}, {"requests": [{}] * 501}])
def test_a_malformed_batch_is_refused(reader: SourceReader, body: object) -> None:
    assert reader.look_up_many("card", body).status == 400


def test_a_changed_order_is_never_answered_from_the_cache(world: World, reader: SourceReader) -> None:
    def statuses() -> list[str]:
        (part,) = reader.look_up_many("order", {"requests": [VALID]}).body["answers"]
        return [reader.look_up("order", VALID).body["status"], part["ok"]["status"]]

    assert statuses() == ["PENDING", "PENDING"]
    world.acquirer.begin("o_1001", "pay_1")
    assert statuses() == ["PAYING", "PAYING"]


def test_a_wrong_identity_affects_every_part_of_a_batch(reader: SourceReader) -> None:
    batch = reader.look_up_many(
        "card", {"requests": [{"user_id": "u_1"}, {"user_id": "u_5"}, {"user_id": "u_7"}]}
    ).with_wrong_identity("user_id")
    user_ids = [part["ok"]["user_id"] for part in batch.body["answers"] if "ok" in part]
    assert len(user_ids) == 2
    assert not {"u_1", "u_7"} & set(user_ids)
