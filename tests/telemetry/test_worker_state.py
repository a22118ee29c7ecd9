"""What a worker reports about itself: sources, loop, payments, configuration."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from cashier import asgi
from cashier.asgi import reload
from cashier.consultation.answer import RequiredSourceUnavailable
from cashier.core import Cashier
from cashier.domain.order import ConsultRequest, Product, Terminal
from cashier.domain.payment_state import PaymentEvent
from cashier.fanout.breaker import BreakerState
from cashier.fanout.load_shedding import DegradationLadder, SheddingStep
from cashier.settings.loader import file_digest, load
from cashier.settings.schema import Configuration
from cashier.telemetry.worker_report import payments_state
from cashier.telemetry.worker_state import ReloadResult, WorkerState
from cashier.web.cross_origin import AllowedOrigins
from tests.payments.checkout import checkout

REQUEST = ConsultRequest(
    order_id="o_1", user_id="u_1", merchant_id="m_1", product=Product.STANDARD_CASHIER, terminal=Terminal.APP
)
RELOADS = "cashier_config_reload_total"
# Nothing listens on port 1.
SOURCES = ("order", "merchant", "member", "card", "balance", "channel", "quota")
TABLE = "".join(f'[sources.{name}]\nurl = "http://127.0.0.1:1"\n' for name in SOURCES)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cashier.toml"
    path.write_text(f'[tokens]\nsecrets = ["{"s" * 40}"]\n{TABLE}')
    return path


def edit(file: Path, old: str, new: str) -> None:
    """Replace the first occurrence."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_each_source_reports_its_mechanisms_and_single_addresses(file: Path) -> None:
    state = Cashier(config=load(file), ladder=DegradationLadder()).state()
    assert [source.name for source in state.sources] == list(SOURCES)
    order = state.sources[0]
    assert (order.importance, order.urls, order.timeout_ms) == ("REQUIRED", ("http://127.0.0.1:1",), 120)
    (endpoint,) = order.endpoints
    assert (endpoint.breaker, endpoint.in_flight, endpoint.limit) == (BreakerState.CLOSED, 0, 320)
    assert endpoint.latency_ms is None
    assert state.loop is not None
    assert state.loop.step is SheddingStep.CLEAR
    assert state.payments is None, "no payment services are configured"


def test_an_open_breaker_says_when_it_probes_and_comes_first(file: Path) -> None:
    edit(file, 'url = "http://127.0.0.1:1"', 'url = ["http://127.0.0.2:1", "http://127.0.0.1:1"]')
    cashier = Cashier(config=load(file))
    guard = cashier.pipelines["order"].guard
    sick = guard.endpoints[1]
    for _ in range(40):
        sick.record_failure(guard.clock_ns(), guard.clock_ns(), counted=False, overload=False)
    first, second = cashier.state().sources[0].endpoints
    assert (first.address, first.breaker, second.breaker) == (sick.name, BreakerState.OPEN, BreakerState.CLOSED)
    assert 0 < first.probe_in_s <= 5
    sick.breaker.probe_soon(guard.clock_ns())
    assert cashier.state().sources[0].endpoints[0].breaker is BreakerState.HALF_OPEN


async def test_a_failure_has_its_code_and_its_particulars(file: Path) -> None:
    async with Cashier(config=load(file)) as cashier:
        with pytest.raises(RequiredSourceUnavailable):
            await cashier.consult(REQUEST)
        [failure] = cashier.state().sources[0].failures
    assert (failure.reason, failure.address) == ("REFUSED", "http://127.0.0.1:1")
    assert "Connect call failed" in failure.detail


@pytest.mark.moves("cashier_config_reload_total")
async def test_each_reload_counts_by_its_result(file: Path) -> None:
    edit(file, "[sources.order]", "[consult]\ndeadline_ms = 150\n[sources.order]")
    cashier, origins = Cashier(config=load(file)), AllowedOrigins({})

    async def reloaded(read: Callable[[], Configuration] = lambda: load(file)) -> dict[tuple[str, ...], object]:
        before = cashier.metrics.snapshot().get(RELOADS, {})
        await reload(cashier, origins, read)
        after = cashier.metrics.snapshot()[RELOADS]
        return {labels: count for labels, count in after.items() if count != before.get(labels, 0)}

    def crash() -> Configuration:
        raise ZeroDivisionError

    edit(file, "deadline_ms = 150", "deadline_ms = 200")
    assert await reloaded() == {("applied",): 1}
    edit(file, "deadline_ms = 200", "deadline_ms = -1")
    assert await reloaded() == {("refused",): 1}
    edit(file, "deadline_ms = -1", "deadline_ms = 200\n[server]\nkeep_alive_s = 7")
    assert await reloaded() == {("partial",): 1}
    assert await reloaded(crash) == {("error",): 1}


async def test_each_reading_of_the_configuration_is_kept_with_its_outcome(file: Path) -> None:
    edit(file, "[sources.order]", "[consult]\ndeadline_ms = 150\n[sources.order]")
    cashier, origins = Cashier(config=load(file)), AllowedOrigins({})
    edit(file, "deadline_ms = 150", "deadline_ms = 200")
    await reload(cashier, origins, lambda: load(file))
    applied = file_digest(file)
    edit(file, "deadline_ms = 200", "deadline_ms = -1")
    await reload(cashier, origins, lambda: load(file))
    state = cashier.state().configuration
    assert state.settings["consult.deadline_ms"] == "200", "the last good configuration is in effect"
    assert state.previous["consult.deadline_ms"] == "150"
    assert state.digest == applied
    assert [reading.result for reading in state.reloads] == [
        ReloadResult.REFUSED,
        ReloadResult.APPLIED,
        ReloadResult.APPLIED,
    ]
    assert state.reloads[0].digest == file_digest(file)
    assert state.digest != file_digest(file)
    assert any("deadline_ms" in fault for fault in state.reloads[0].faults)


@pytest.mark.parametrize("key", ["", 'transport = "aiohttp"\n'])
@pytest.mark.parametrize("url", ["http://bob:hunter2@10.0.0.7:1", "http://10.0.0.7:1/?key=hunter2", "ftp://hunter2@h"])
async def test_an_address_that_a_start_would_refuse_is_neither_applied_nor_shown(
    file: Path, url: str, key: str
) -> None:
    cashier = Cashier(config=load(file))
    edit(file, 'url = "http://127.0.0.1:1"\n', f'url = "{url}"\n{key}')
    await reload(cashier, AllowedOrigins({}), lambda: load(file))
    state = cashier.state()
    assert state.configuration.reloads[0].result is ReloadResult.REFUSED
    assert any("[sources.order] url" in fault for fault in state.configuration.reloads[0].faults)
    assert b"hunter2" not in msgspec.json.encode(state)


async def test_a_bug_in_a_reload_is_kept_apart_from_a_fault_of_the_file(file: Path) -> None:
    def read() -> Configuration:
        raise ZeroDivisionError

    cashier = Cashier(config=load(file))
    await reload(cashier, AllowedOrigins({}), read)
    assert cashier.state().configuration.reloads[0].result is ReloadResult.CRASHED


@contextmanager
def hung_files() -> Iterator[tuple[asyncio.Event, Callable[[], Configuration]]]:
    """What reads files that do not come until the end of the test, and whether it has begun."""
    loop, begun, come = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def read() -> Configuration:
        loop.call_soon_threadsafe(begun.set)
        come.wait()
        raise ZeroDivisionError

    try:
        yield begun, read
    finally:
        come.set()


async def test_a_stop_does_not_wait_for_a_file_system_that_hangs(file: Path) -> None:
    cashier = Cashier(config=load(file))
    with hung_files() as (begun, read):
        async with asyncio.timeout(5), asgi.open_and_reload(cashier, AllowedOrigins({}), read):
            os.kill(os.getpid(), signal.SIGHUP)
            await begun.wait()


async def test_files_that_do_not_come_are_reported_and_the_next_reload_applies(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cashier = Cashier(config=load(file))
    with hung_files() as (_, read), monkeypatch.context() as changed:
        changed.setattr(asgi, "READ_S", 0.001)
        await reload(cashier, AllowedOrigins({}), read)
    [fault] = cashier.state().configuration.reloads[0].faults
    assert fault == f"{file}: cannot be read: its file system has not answered within 0.001 s; reload again"
    await reload(cashier, AllowedOrigins({}), lambda: load(file))
    results = [reading.result for reading in cashier.state().configuration.reloads]
    assert results == [ReloadResult.APPLIED, ReloadResult.REFUSED, ReloadResult.APPLIED]


def test_the_message_survives_its_encoding(file: Path) -> None:
    state = Cashier(config=load(file), ladder=DegradationLadder()).state()
    assert msgspec.json.decode(msgspec.json.encode(state), type=WorkerState) == state


@pytest.mark.virtual_time
async def test_a_payment_whose_submit_has_no_answer_is_unknown_and_listed_first() -> None:
    async with checkout(most_in_background=10) as shop:
        await shop.pay("balance_is_enough", "WALLET:ALIPAY", key="k0")
        await asyncio.sleep(1)
        shop.inject("engine", "cut", on="submit")
        unsure = await shop.pay("chinese_shop", "WALLET:ALIPAY", key="k1")
        state = payments_state(shop.payments.watched())
        assert (state.live, state.unknown) == (2, 1)
        assert state.listed[0].payment_id == unsure.payment_id
        assert state.listed[0].event in (PaymentEvent.ENGINE_NEVER_ARRIVED, PaymentEvent.ENGINE_SILENT)
        assert not state.listed[1].unknown


@pytest.mark.parametrize("services", [(), ("risk", "engine", "acquirer")])
async def test_a_half_written_file_changes_nothing(tmp_path: Path, services: tuple[str, ...]) -> None:
    """Cut at any line: a start would refuse it, though most of the cuts are a configuration."""
    file = tmp_path / "cashier.toml"
    needed = ("order", "merchant", "member", "card", "balance", "channel", "quota", *services)
    lines = ["[consult]", "deadline_ms = 200", "[merchants.m_1]", 'origins = ["https://shop.example"]', "[sources]"]
    lines += [f'{name}.url = "http://127.0.0.1:1"' for name in needed]
    file.write_text("\n".join(lines))
    cashier = Cashier(config=load(file))
    origins = AllowedOrigins(cashier.config.settings.merchants)
    before = cashier.config
    for cut in range(len(lines)):
        file.write_text("\n".join(lines[:cut]))
        await reload(cashier, origins, lambda: load(file))
        last = cashier.state().configuration.reloads[0]
        # Without any of the three, the file is one of a service that only consults.
        complete = bool(services) and cut == len(lines) - len(services)
        assert last.result is (ReloadResult.APPLIED if complete else ReloadResult.REFUSED), cut
        assert cashier.config.settings.consult == before.settings.consult
        assert cashier.config.settings.merchants == before.settings.merchants
        assert any("is missing" in fault for fault in last.faults) or complete
    file.write_text("\n".join(lines))
    await reload(cashier, origins, lambda: load(file))
    assert cashier.state().configuration.reloads[0].result is ReloadResult.APPLIED


@pytest.mark.parametrize("folder", [b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80", "中文".encode("gbk")])
async def test_a_file_whose_name_is_not_utf8_is_reported(file: Path, tmp_path: Path, folder: bytes) -> None:
    moved = tmp_path / os.fsdecode(folder) / "cashier.toml"
    moved.parent.mkdir()
    os.rename(file, moved)
    cashier = Cashier(config=load(moved))
    edit(moved, "[tokens]", "tokens = [")
    await reload(cashier, AllowedOrigins({}), lambda: load(moved))
    edit(moved, "tokens = [", "[tokens]")
    await reload(cashier, AllowedOrigins({}), lambda: load(moved))
    state = msgspec.json.decode(msgspec.json.encode(cashier.state()), type=WorkerState).configuration
    assert state is not None
    assert state.file.endswith("/cashier.toml")
    assert [reading.result for reading in state.reloads] == [
        ReloadResult.APPLIED,
        ReloadResult.REFUSED,
        ReloadResult.APPLIED,
    ]
    assert "not valid TOML" in state.reloads[1].faults[0]
