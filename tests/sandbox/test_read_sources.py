"""How the readings are asked: parameters by name, checked the same way for everybody."""

from __future__ import annotations

import pytest

from cashier.sandbox.read_sources import SOURCE_READS, SourceReader
from cashier.sandbox.world import World

RIGHT: dict[str, object] = {
    "order_id": "o_1001",
    "merchant_id": "m_1",
    "user_id": "u_1",
    "currency": "CNY",
    "country": "CN",
    "value": "12800",
}
WRONG: list[tuple[str, str, object]] = [
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
def lookups(world: World) -> SourceReader:
    return SourceReader(world)


@pytest.mark.parametrize("source", SOURCE_READS)
def test_right_parameters_find_the_named_cast(lookups: SourceReader, source: str) -> None:
    assert lookups.look_up(source, RIGHT).status == 200


@pytest.mark.parametrize(("source", "field", "value"), WRONG)
def test_a_wrong_parameter_is_named_in_a_400(lookups: SourceReader, source: str, field: str, value: object) -> None:
    answer = lookups.look_up(source, RIGHT | {field: value})
    assert (answer.status, answer.body["field"]) == (400, field)


def test_quotas_and_promotions_are_those_of_the_currency(lookups: SourceReader) -> None:
    assert lookups.look_up("quota", RIGHT | {"currency": "JPY"}).body == {"user_id": "u_1", "quotas": []}
    assert lookups.look_up("marketing", RIGHT | {"currency": "JPY"}).body["promotions"] == []


def test_no_channel_for_a_currency_is_an_empty_list(lookups: SourceReader) -> None:
    assert lookups.look_up("channel", RIGHT | {"country": "JP"}).body == {"channels": []}


def test_a_batch_answers_each_request_as_a_single_call_would(lookups: SourceReader) -> None:
    questions = [{"user_id": "u_1"}, {"user_id": "u_5"}, {"user_id": "u_100001"}, {"user_id": ""}]
    answers = lookups.look_up_many("card", {"requests": questions}).body["answers"]
    assert answers[0] == {"ok": lookups.look_up("card", questions[0]).body}
    assert answers[1] == {"error": {"status": 404, "code": "NOT_FOUND"}}
    assert answers[2] == {"ok": lookups.look_up("card", questions[2]).body}
    assert answers[3] == {"error": {"status": 400, "code": "MALFORMED"}}


@pytest.mark.parametrize("source", ["order", "merchant"])
def test_orders_and_merchants_can_be_asked_for_in_batches(lookups: SourceReader, source: str) -> None:
    name = f"{source}_id"
    questions = [{name: "o_404"}, {name: RIGHT[name]}, {}]
    answers = lookups.look_up_many(source, {"requests": questions}).body["answers"]
    assert SOURCE_READS[source].batch == f"/batch/{source}s"
    assert answers == [
        {"error": {"status": 404, "code": "NOT_FOUND"}},
        {"ok": lookups.look_up(source, RIGHT).body},
        {"error": {"status": 400, "code": "MALFORMED"}},
    ]


def test_a_batch_takes_amounts_as_numbers(lookups: SourceReader) -> None:
    request = {"user_id": "u_1", "merchant_id": "m_1", "currency": "CNY", "value": 12800}
    assert "ok" in lookups.look_up_many("marketing", {"requests": [request]}).body["answers"][0]


@pytest.mark.parametrize("body", [None, [], {}, {"requests": {}}, {"requests": ["u_1"]}, {"requests": [{}] * 501}])
def test_a_batch_that_is_none_is_refused(lookups: SourceReader, body: object) -> None:
    assert lookups.look_up_many("card", body).status == 400


def test_what_was_remembered_is_not_told_of_an_order_that_changed(world: World, lookups: SourceReader) -> None:
    def statuses() -> list[str]:
        (part,) = lookups.look_up_many("order", {"requests": [RIGHT]}).body["answers"]
        return [lookups.look_up("order", RIGHT).body["status"], part["ok"]["status"]]

    assert statuses() == ["PENDING", "PENDING"]
    world.acquirer.begin("o_1001", "pay_1")
    assert statuses() == ["PAYING", "PAYING"]


def test_a_mistaken_answer_is_about_somebody_else_in_every_part(lookups: SourceReader) -> None:
    batch = lookups.look_up_many(
        "card", {"requests": [{"user_id": "u_1"}, {"user_id": "u_5"}, {"user_id": "u_7"}]}
    ).with_wrong_identity("user_id")
    told = [part["ok"]["user_id"] for part in batch.body["answers"] if "ok" in part]
    assert len(told) == 2
    assert not {"u_1", "u_7"} & set(told)
