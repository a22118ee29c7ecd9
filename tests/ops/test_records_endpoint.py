"""Recorded consultations at the operations port: found by what was wrong, downloaded, replayed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cashier.domain.pay_method import Availability, Kind
from cashier.domain.ranking import Weights
from cashier.fanout.ask import Importance, SourceStatus
from cashier.ops.record_store import RecordStore
from cashier.ops.records_endpoint import MOST_LISTED, MOST_SEARCHED, records_routes
from cashier.ops.replay_view import replay_view
from cashier.settings.loader import configuration
from cashier.telemetry.pseudonyms import Pseudonyms
from cashier.telemetry.records import ConsultationRecord, MethodRecord, SourceRecord, Verdict
from cashier.telemetry.replay import digest_of, packed, recorded
from tests.domain.builders import CATALOG, World, account, card, channel, quota
from tests.domain.explanation.evidence import evidence_of
from tests.telemetry.sample_records import payment, record, state

QUOTA_SILENT = SourceRecord("quota", Importance.GATING, SourceStatus.TIMEOUT, 0.0, 100.0)
CARD_FRESH = SourceRecord("card", Importance.GATING, SourceStatus.FRESH, 0.0, 3.0)
WALLET = MethodRecord(Kind.WALLET, Availability.UNDETERMINED, 1)
RECORDS = (
    record(request_id="slow", order_id="o_slow", sources=(CARD_FRESH,)),
    record(request_id="silent", verdicts=(Verdict.DEGRADED, Verdict.LATE), sources=(QUOTA_SILENT, CARD_FRESH)),
    record(request_id="wallet", verdicts=(Verdict.UNDETERMINED,), methods=(WALLET,)),
)


@pytest.fixture
def store() -> RecordStore:
    store = RecordStore()
    for each in RECORDS:
        store.put_record(each, msgspec.json.encode(each))
    return store


@pytest.fixture
def client(store: RecordStore) -> TestClient:
    return TestClient(Starlette(routes=records_routes(store)))


def found(client: TestClient, query: str = "") -> list[str]:
    return [each["request_id"] for each in client.get(f"/api/records{query}").json()["records"]]


@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.SAMPLED])
def test_bad_ones_are_found_behind_any_number_of_sampled_ones(
    store: RecordStore, client: TestClient, verdict: Verdict
) -> None:
    bad = record(request_id="bad", verdicts=(verdict, Verdict.SAMPLED))
    store.put_record(bad, msgspec.json.encode(bad))
    good = record(verdicts=(Verdict.SAMPLED,))
    body = msgspec.json.encode(good)
    for _ in range(MOST_SEARCHED + 1):
        store.put_record(good, body)
    assert found(client, f"?verdict={verdict}")[0] == "bad"
    assert found(client, "?verdict=SAMPLED") == ["r_1"] * MOST_LISTED


def test_records_are_listed_the_latest_first(client: TestClient) -> None:
    assert found(client) == ["wallet", "silent", "slow"]
    [_, silent, _] = client.get("/api/records").json()["records"]
    assert silent["sources"] == ["quota"]
    assert silent["verdicts"] == ["DEGRADED", "LATE"]
    assert silent["replays"] is False


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?verdict=LATE", ["silent"]),
        ("?kind=WALLET", ["wallet"]),
        ("?kind=CARD", []),
        ("?source=quota", ["silent"]),
        ("?source=card", []),
        ("?order_id=o_slow", ["slow"]),
        ("?request_id=silent&verdict=SLOW", []),
    ],
)
def test_records_are_found_by_what_was_wrong(client: TestClient, query: str, expected: list[str]) -> None:
    assert found(client, query) == expected


@pytest.mark.parametrize("query", ["?verdict=BAD", "?kind=CASH"])
def test_a_filter_that_there_is_not_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/api/records{query}").status_code == 400


def test_a_list_is_bounded_and_says_so(client: TestClient, store: RecordStore) -> None:
    assert client.get("/api/records").json()["complete"] is True
    for number in range(MOST_LISTED + 5):
        each = record(request_id=f"r_{number}")
        store.put_record(each, msgspec.json.encode(each))
    listed = client.get("/api/records").json()
    assert (len(listed["records"]), listed["complete"]) == (MOST_LISTED, False)


def test_a_record_is_downloaded_whole_by_its_key(client: TestClient) -> None:
    key = client.get("/api/records?request_id=silent").json()["records"][0]["key"]
    body = client.get(f"/api/records/{key}").content
    assert msgspec.json.decode(body, type=ConsultationRecord) == RECORDS[1]
    assert client.get(f"/api/records/{key}?request_id=silent").content == body
    assert client.get("/api/records/0123456789abcdef").status_code == 404


def replayable(world: World, **fields: Any) -> ConsultationRecord:
    digest = digest_of(CATALOG, Weights())
    return record(facts=packed(recorded(evidence_of(world), world.methods(), digest, Pseudonyms(b"k" * 32))), **fields)


def test_a_record_is_replayed_for_the_console() -> None:
    world = World(
        cards=(card("CMB", status="FROZEN"),),
        channels=(channel(Kind.QUICK_PAY, "CMB"),),
        accounts=(account(50_000),),
        quotas=(quota(Kind.QUICK_PAY, daily=(5, 5)),),
    )
    view = replay_view(replayable(world), configuration({}, ""))
    assert (view.unavailable, view.same_configuration, view.differences) == (None, True, ())
    kinds = {each.kind: each for each in view.kinds}
    [method] = kinds["QUICK_PAY"].methods
    assert (method.refused_by, method.behind) == ("CARD_STATUS", ("DAILY_LIMIT",))
    assert "CARD_FROZEN: the card must be active" in method.sentence
    left_out = kinds["WALLET"].left_out
    assert left_out is not None
    assert "channels of WALLET in CNY/CN is none" in left_out


def test_a_record_without_facts_says_so() -> None:
    view = replay_view(record(), configuration({}, ""))
    assert view.unavailable is not None
    assert "no facts" in view.unavailable


def test_unsettled_payments_are_listed_with_what_became_of_them() -> None:
    store = RecordStore()
    store.put_state(state(7, payment("p_1"), payment("p_2")))
    store.put_state(state(7, payment("p_2")))
    listed = TestClient(Starlette(routes=records_routes(store))).get("/api/payments").json()["payments"]
    assert [(each["payment"]["payment_id"], each["fate"]) for each in listed] == [("p_2", "LIVE"), ("p_1", "ENDED")]
