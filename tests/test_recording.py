"""Recordings: nothing of a payer is in them, and their replay brings the same offer."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cashier import Cashier, ConsultRequest
from cashier.recording import NothingToRecord, Recording, record, write
from cashier.sandbox import serve, weather_named
from cashier.sandbox.recorded_answers import BadRecording, RecordedReader
from cashier.settings.loader import configuration
from tests.conformance.seeded_faults import field, row_of
from tests.conformance.spoiled_service import Answer, Received, spoiled_sandbox

NAMES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")
# Patient, because a busy machine answers late.
PATIENT = {"deadline_ms": 10_000, "max_deadline_ms": 20_000, "grace_ms": 9_000}


def tables(port: int) -> dict[str, Any]:
    sources = {name: {"url": f"http://127.0.0.1:{port}", "timeout_ms": 9_000} for name in NAMES}
    return {"sources": sources, "consult": PATIENT}


async def recorded(order_id: str = "o_1001", **known: Any) -> Recording:
    async with serve(port=0, weather=weather_named("still")) as port:
        config = configuration(tables(port), "a test")
        return (await record(config, {"order_id": order_id, **known}))[0]


async def offer(port: int, request: dict[str, Any]) -> Counter[str]:
    """What is offered, without the ids of a payer."""
    asked = msgspec.convert({"terminal": "APP", "deadline_ms": 10_000, **request}, ConsultRequest)
    async with Cashier(config=tables(port)) as cashier:
        answer = await cashier.consult(asked)
    assert not answer.degraded
    return Counter(
        f"{method.kind} {method.availability} {method.amount and method.amount.payable}"
        f" {method.reason and method.reason.code} {sorted(each.partition(':')[0] for each in method.rank_reasons)}"
        for method in answer.methods
    )


@pytest.mark.parametrize("order_id", ["o_1001", "o_6201", "o_1012"])
async def test_a_replay_brings_the_offer_of_the_recorded_consultation(order_id: str, tmp_path: Path) -> None:
    write(await recorded(order_id), tmp_path)
    reader = RecordedReader(tmp_path)
    [replayed] = reader.requests
    assert reader.sources == tuple(name for name in reader.sources if name in NAMES)
    assert len(reader.sources) == len(NAMES)
    async with serve(port=0, weather=weather_named("still")) as real:
        original = {name: replayed[name] for name in ("amount", "country", "product")}
        order = {"o_1001": ("u_1", "m_1"), "o_6201": ("u_62", "m_62"), "o_1012": ("u_5", "m_1")}[order_id]
        before = await offer(real, {**original, "order_id": order_id, "user_id": order[0], "merchant_id": order[1]})
    async with serve(port=0, weather=weather_named("still"), sources=reader.sources, reader=reader) as port:
        after = await offer(port, replayed)
    assert before == after
    assert sum(before.values()) > 3


async def test_a_recording_has_no_text_of_a_payer_and_no_field_beyond_the_contract(tmp_path: Path) -> None:
    def spoil(received: Received, answer: Answer) -> Answer:
        with_phone = field(phone="13812345678")(received, answer)
        return row_of("cards", status="13812345678")(received, with_phone)

    async with spoiled_sandbox(spoil) as url:
        config = configuration({"sources": {name: {"url": url} for name in NAMES}}, "a test")
        recording, missing = await record(config, {"order_id": "o_1001"})
    assert missing == []
    text = write(recording, tmp_path).read_text("utf-8")
    assert not [
        value for value in ("o_1001", "u_1", "m_1", "c_1", "acc_1", "p_1", "1014", "138") if f'"{value}' in text
    ]
    assert "phone" not in text
    card = next(answer.body for answer in recording.answers if answer.source == "card")
    quota = next(answer.body for answer in recording.answers if answer.source == "quota")
    scopes = {each["scope"]["card_id"] for each in quota["quotas"] if "card_id" in each["scope"]}
    assert scopes <= {each["card_id"] for each in card["cards"]}
    assert {each["bank"] for each in card["cards"]} >= {"CMB", "ICBC"}


async def test_two_recordings_of_one_order_have_no_pseudonym_in_common() -> None:
    first, second = await recorded(), await recorded()
    assert not {name for name in ("order_id", "user_id", "merchant_id") if first.request[name] == second.request[name]}


async def test_times_move_with_the_clock(tmp_path: Path) -> None:
    recording = await recorded()
    write(recording, tmp_path)
    later = datetime.now(UTC) + timedelta(days=400)
    reader = RecordedReader(tmp_path, now=later)
    order = reader.look_up("order", {"order_id": recording.request["order_id"]})
    left = datetime.fromisoformat(order.body["expires_at"]) - later
    assert timedelta(hours=23) < left < timedelta(hours=25)
    assert reader.look_up("order", {"order_id": "o_1"}).status == 404


async def test_an_order_that_does_not_exist_is_not_recorded() -> None:
    with pytest.raises(NothingToRecord, match="there is none with this id"):
        await recorded("o_404")


@pytest.mark.parametrize("content", [None, "{}", "[", json.dumps({"recorded_at": "x", "request": {}, "answers": []})])
def test_a_folder_without_a_recording_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    with pytest.raises(BadRecording, match=r"no recording"):
        RecordedReader(tmp_path)
