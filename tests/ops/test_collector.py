"""The link from a worker to the operations port's process, over a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from cashier.asgi import open_and_reload
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.metrics.store import Store
from cashier.ops import collector
from cashier.ops.collector import collecting
from cashier.ops.record_store import PaymentFate, RecordStore
from cashier.telemetry import operations_link
from cashier.telemetry.operations_link import MOST_FRAME_BYTES, MOST_QUEUED_BYTES, SOCKET_NAME, OperationsLink
from cashier.telemetry.worker_state import WorkerState
from cashier.web.cross_origin import AllowedOrigins
from tests.ops.test_payment_steps import step
from tests.telemetry.sample_records import payment, record, state


async def until(happens: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happens():  # noqa: ASYNC110 - another process would not set an event either
            await asyncio.sleep(0.002)


@asynccontextmanager
async def linked(directory: Path, metrics: Store | None = None) -> AsyncIterator[OperationsLink]:
    link = OperationsLink(directory, metrics or Store())
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        await asyncio.wait((running,))


def unsent(metrics: Store) -> int:
    return metrics.counter("cashier_consultation_records_total", "unsent").value


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


async def test_records_and_states_arrive(tmp_path: Path) -> None:
    records = RecordStore()
    async with collecting(tmp_path, records), linked(tmp_path) as link:
        link.send_state(state(7, payment()))
        for number in range(50):
            link.send_record(msgspec.json.encode(record(request_id=f"r_{number}")))
        await until(lambda: len(list(records.records())) == 50 and bool(records.states))
        assert next(records.records()) == record(request_id="r_49")
        assert records.states == {7: state(7, payment())}
    assert records.states == {}, "the worker has left"
    assert len(list(records.records())) == 50
    assert [each.fate for each in records.payments()] == [PaymentFate.LEFT]


async def test_steps_of_payments_arrive_beside_records(tmp_path: Path) -> None:
    records = RecordStore()
    async with collecting(tmp_path, records), linked(tmp_path) as link:
        for number in range(3):
            link.send_record(msgspec.json.encode(record(request_id=f"r_{number}")))
            link.send_record(msgspec.json.encode(step(f"event {number}")))
        await until(lambda: len(records.steps.steps("pay_1")) == 3)
        assert [each.event for each in records.steps.steps("pay_1")] == ["event 0", "event 1", "event 2"]
        assert [each.request_id for each in records.records()] == ["r_2", "r_1", "r_0"]


async def test_what_is_sent_before_anything_listens_arrives_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations_link, "RETRY_S", 0.01)
    records = RecordStore()
    async with linked(tmp_path) as link:
        link.send_record(msgspec.json.encode(record()))
        link.send_state(state(7, at=1.0))
        link.send_state(state(7, at=2.0))
        await asyncio.sleep(0.03)
        async with collecting(tmp_path, records):
            await until(lambda: bool(list(records.records())) and bool(records.states))
            assert records.states[7].at == 2.0
        # The collector starts again, and the link finds it.
        await until(lambda: not records.states)
        async with collecting(tmp_path, records):
            await asyncio.sleep(0.03)
            link.send_state(state(7, at=3.0))
            link.send_record(msgspec.json.encode(record(request_id="r_2")))
            await until(lambda: 7 in records.states)


async def test_a_worker_never_waits_and_counts_what_nobody_takes(tmp_path: Path) -> None:
    """The other side accepts, and does not read."""
    metrics = Store()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / SOCKET_NAME))
    listener.listen()
    body = b"x" * 10_000
    async with linked(tmp_path, metrics) as link:
        for _ in range(3 * MOST_QUEUED_BYTES // len(body)):
            link.send_record(msgspec.json.encode(record(facts=body)))
        await asyncio.sleep(0.05)
        for _ in range(3 * MOST_QUEUED_BYTES // len(body)):
            link.send_record(msgspec.json.encode(record(facts=body)))
        assert unsent(metrics) > 200
        assert "bytes queued" in repr(link)
    listener.close()


@pytest.mark.moves("cashier_consultation_records_total")
async def test_a_record_beyond_the_bound_is_not_sent(tmp_path: Path) -> None:
    metrics = Store()
    async with linked(tmp_path, metrics) as link:
        link.send_record(msgspec.json.encode(record(facts=b"x" * MOST_FRAME_BYTES)))
    assert unsent(metrics) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        frame(b"{}"),
        frame(b"not json"),
        frame(b"\xff\xfe"),
        frame(b'{"type":"nothing"}'),
        frame(b'{"type":"worker_state","pid":"x"}'),
        frame(b"[" * 100_000),
        frame(b'{"type":"consultation","facts":' + b"[" * 100_000),
        frame(msgspec.json.encode(record()))[:-1],
        b"\x00",
        b"",
    ],
    ids=lambda garbage: repr(garbage[:24]),
)
async def test_a_broken_peer_is_disconnected_and_disturbs_no_other(tmp_path: Path, garbage: bytes) -> None:
    records = RecordStore()
    async with collecting(tmp_path, records), linked(tmp_path) as link:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
        writer.write(garbage)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        link.send_record(msgspec.json.encode(record()))
        await until(lambda: bool(list(records.records())))
        assert len(list(records.records())) == 1


async def test_a_peer_in_the_middle_of_a_message_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with collecting(tmp_path, RecordStore()):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
        writer.write(b"\x00\x00")
        await writer.drain()
        await asyncio.sleep(0.01)
    assert await reader.read() == b""
    writer.close()


async def test_another_user_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says who connects; here the service pretends to be another user."""
    monkeypatch.setattr(collector.os, "getuid", lambda: 12_345)  # type: ignore[attr-defined]
    records = RecordStore()
    async with collecting(tmp_path, records):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
        writer.write(frame(msgspec.json.encode(record())))
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    assert list(records.records()) == []


async def test_no_place_for_the_socket_is_no_fault(tmp_path: Path) -> None:
    async with collecting(tmp_path / ("long" * 40), RecordStore()):
        pass
    async with collecting(None, RecordStore()):
        pass


async def test_a_bug_in_reporting_does_not_end_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(**_inputs: Any) -> Any:
        raise ConnectionRefusedError

    called = asyncio.Event()

    def broken(cashier: Cashier) -> WorkerState:
        called.set()
        raise RuntimeError("a bug")

    monkeypatch.setattr(Cashier, "state", broken)
    cashier = Cashier(sources=dict.fromkeys(SOURCE_NAMES, silent))
    with structlog.testing.capture_logs() as logged:
        async with open_and_reload(cashier, AllowedOrigins({}), lambda: cashier.config, tmp_path):
            await called.wait()
            await until(lambda: bool(logged))
            assert cashier.ready
            assert cashier.recorder.send is cashier.payment_steps.send is None
    assert "operators do not see this worker" in logged[0]["event"]
