"""Generated breakages of adapters: whatever one does, only its own source fails.

Each example breaks one source of a whole consultation. The oracle is the same consultation with
this source unreachable, or, if the broken answer is a usable one, with the contract's own service
giving it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import types
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cashier import Cashier, ConsultRequest, OrderUnknown, Product, RequiredSourceUnavailable, Terminal
from cashier.consultation.answer import Consultation
from cashier.consultation.source_table import SOURCE_SPECS
from cashier.domain.money import Money
from cashier.fanout.ask import Importance, SourceStatus
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.source_errors import Garbled, SourceError, TimedOut, Unreachable
from cashier.wire.transport import Request

SPECS = {spec.source.name: spec for spec in SOURCE_SPECS}
REQUIRED = {name for name, spec in SPECS.items() if spec.importance is Importance.REQUIRED}
REQUEST = ConsultRequest(
    order_id="o_1001", user_id="u_1", merchant_id="m_1", product=Product.STANDARD_CASHIER, terminal=Terminal.APP,
    amount=Money("CNY", 12800), country="CN",
)  # fmt: skip
MODULE = "broken_adapters_of_a_test"
OFF = {"cache": False, "breaker": False, "limiter": False, "hedge": False, "retry": False, "adaptive_timeout": False}
# Far above what a busy machine needs: only an adapter that hangs may time out.
PATIENT = {"deadline_ms": 9_000, "max_deadline_ms": 9_000, "grace_ms": 8_000}
TIMEOUT_MS = 8_000
SHORT_MS = 50


class Halt(BaseException):
    pass


class Explosive(UserDict[str, Any]):
    """A mapping whose members raise when they are read."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__()
        self.fault = fault

    def items(self) -> Any:
        raise self.fault

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


async def _coroutine() -> None: ...


def _generator() -> Iterator[int]:
    yield 1


FAULTS: list[Callable[[], BaseException]] = [
    KeyError, ValueError, TypeError, RuntimeError, ZeroDivisionError, AttributeError, RecursionError, MemoryError,
    AssertionError, OSError, TimeoutError, StopIteration, asyncio.CancelledError, SystemExit, GeneratorExit, Halt,
    lambda: ExceptionGroup("x", [ValueError()]), lambda: UnicodeDecodeError("ascii", b"x", 0, 1, "x"),
    lambda: SourceError("x"), lambda: Garbled("x"), lambda: Unreachable("x"),
]  # fmt: skip
# Made anew for each example: a coroutine can be used once.
VALUES: list[Callable[[], Any]] = [
    lambda: None, lambda: True, lambda: -1, lambda: 0, lambda: 1.5, lambda: float("nan"), lambda: float("inf"),
    lambda: 10**30, lambda: "", lambda: "x" * 5_000, lambda: "\ud800", lambda: "u_2", lambda: "o_2", lambda: b"x",
    list, dict, lambda: [[]], lambda: {"currency": "CNY"}, object, lambda: object, _coroutine, _generator,
    lambda: Decimal(1), lambda: (lambda: None), lambda: {1: 2}, lambda: [0] * 150_000, lambda: "12/30",
    lambda: Explosive(RuntimeError()), lambda: Explosive(SystemExit()), lambda: Explosive(asyncio.CancelledError()),
    lambda: {"currency": "USD", "value": 1}, lambda: "UNKNOWN", set, asyncio.Event,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all parts of an answer, the answer itself included."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in members:
        if key not in range(3, 10_000):  # three rows are as good as all
            yield from places(part, (*path, key))


def replaced(answer: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(answer)
    changed = copy.deepcopy(answer)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = change(parent[path[-1]])
    return changed


class Breakage:
    """What the adapter does in one example. `value`: what it answers, if it comes to that."""

    def __init__(self, name: str, value: Any = None, fault: BaseException | None = None) -> None:
        self.name = name
        self.value = value
        self.fault = fault

    def __repr__(self) -> str:
        return f"<{self.name} {self.fault!r}>" if self.fault else f"<{self.name} {str(self.value)[:200]}>"


class BrokenFirstForm:
    breakage: Breakage

    def request(self, asked: Any) -> Any:
        match self.breakage.name:
            case "request raises":
                raise self.breakage.fault or RuntimeError
            case "request returns":
                return self.breakage.value
            case "reads more":
                return Request(f"/{asked['merchant_id']}{asked['order_id']}")
            case "changes asked":
                asked["user_id"] = "u_2"
        return Request("/")

    def parse(self, response: Any, asked: Any) -> Any:
        if self.breakage.name == "parse raises":
            raise self.breakage.fault or RuntimeError
        return self.breakage.value


class BrokenSecondForm:
    breakage: Breakage

    async def answer(self, asked: Any, call: Any) -> Any:
        match self.breakage.name:
            case "request raises":
                raise self.breakage.fault or RuntimeError
            case "request returns":
                await call(self.breakage.value)
            case "reads more":
                await call(Request(f"/{asked['merchant_id']}{asked['order_id']}"))
            case "changes asked":
                asked["user_id"] = "u_2"
            case "hangs":
                await asyncio.Event().wait()
            case "swallows":
                while True:
                    try:
                        await call(Request("/"))
                    except Exception:  # noqa: BLE001, S112 - a careless retry
                        continue
            case "cancels itself":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
        await call(Request("/"))
        if self.breakage.name == "parse raises":
            raise self.breakage.fault or RuntimeError
        return self.breakage.value


@st.composite
def breakages(draw: st.DrawFn, answer: Any) -> Breakage:
    kind = draw(st.sampled_from(["field", "field", "field", "field", "row", "missing", "fault", "other"]))
    path = draw(st.sampled_from(list(places(answer))))
    match kind:
        case "field":
            made = draw(st.sampled_from(VALUES))
            return Breakage("answers", replaced(answer, path, lambda _: made()))
        case "row":
            return Breakage(
                "answers", replaced(answer, path, lambda part: part * 2 if isinstance(part, list) else part)
            )
        case "missing":
            drop = draw(st.integers(0, 20))
            return Breakage("answers", replaced(answer, path, lambda part: without(part, drop)))
        case "fault":
            name = draw(st.sampled_from(["request raises", "parse raises"]))
            return Breakage(name, fault=draw(st.sampled_from(FAULTS))())
    name = draw(st.sampled_from(["request returns", "reads more", "changes asked", "swallows", "cancels itself"]))
    return Breakage(name, draw(st.sampled_from(VALUES))() if name == "request returns" else None)


def without(part: Any, number: int) -> Any:
    if not isinstance(part, dict) or not part:
        return part
    dropped = list(part)[number % len(part)]
    return {key: value for key, value in part.items() if key != dropped}


class Rig:
    """Cashiers that stay open over all examples, by source and form, and the event loop."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self._cashiers: dict[tuple[str, type, int], tuple[Cashier, Any]] = {}
        self._references: dict[str, tuple[Cashier, list[Any]]] = {}
        self.answers: dict[str, Any] = {}
        self._functions = dict(LocalUpstreams(World(), weather_named("still")).items())
        self.runner.run(self._start())

    async def _start(self) -> None:
        known = {
            "order_id": "o_1001", "user_id": "u_1", "merchant_id": "m_1", "amount": REQUEST.amount, "currency": "CNY",
            "country": "CN",
        }  # fmt: skip
        for name, spec in SPECS.items():
            answer = await self._functions[name](**{need: known[need] for need in spec.needs})
            self.answers[name] = json.loads(json.dumps(answer))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readline():
                while (await reader.readline()).strip():
                    pass
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._open.callback(server.close)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def cashier(self, source: str, form: type, timeout_ms: int = TIMEOUT_MS) -> tuple[Cashier, Any]:
        key = (source, form, timeout_ms)
        if key not in self._cashiers:
            module = sys.modules.setdefault(MODULE, types.ModuleType(MODULE))
            adapter = form()
            name = f"{source}_{form.__name__}_{timeout_ms}"
            setattr(module, name, adapter)
            own = {"url": self.url, "adapter": f"{MODULE}:{name}", "timeout_ms": timeout_ms, **OFF}
            others = {other: function for other, function in self._functions.items() if other != source}
            configured = {other: {"url": self.url, "timeout_ms": TIMEOUT_MS, **OFF} for other in others}
            config = {"sources": {**configured, source: own}, "consult": PATIENT}
            cashier = Cashier(sources=others, config=config)
            self.runner.run(self._open.enter_async_context(cashier))
            self._cashiers[key] = cashier, adapter
        return self._cashiers[key]

    def reference(self, source: str, answer: Any) -> Consultation | None:
        """The consultation with a function that gives or raises `answer`; None: it has none."""
        if source not in self._references:
            cell: list[Any] = []

            async def function(**inputs: Any) -> Any:
                if isinstance(cell[0], SourceError):
                    raise cell[0]
                return cell[0]

            patient = {"url": self.url, "timeout_ms": TIMEOUT_MS, **OFF}
            config = {"sources": dict.fromkeys(SPECS, patient), "consult": PATIENT}
            opened = Cashier(sources={**self._functions, source: function}, config=config)
            self.runner.run(self._open.enter_async_context(opened))
            self._references[source] = opened, cell
        cashier, cell = self._references[source]
        cell[:] = [answer]
        try:
            return self.runner.run(cashier.consult(REQUEST))
        except (RequiredSourceUnavailable, OrderUnknown):
            return None

    def close(self) -> None:
        async def settle() -> None:
            await self._open.aclose()
            # Adapters that swallow a cancellation end with their next request.
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:
                await asyncio.wait(left, timeout=1)

        self.runner.run(settle())
        self.runner.close()
        sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def offered(consultation: Consultation | None) -> Any:
    """What does not depend on time."""
    if consultation is None:
        return None
    return [
        (method.method_id, method.availability, method.reason and method.reason.code, method.amount)
        for method in consultation.methods
    ]


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize("form", [BrokenFirstForm, BrokenSecondForm])
@pytest.mark.parametrize("source", list(SPECS))
def test_whatever_an_adapter_does_only_its_source_fails(rig: Rig, source: str, form: type) -> None:
    answer = rig.answers[source]
    failing = rig.reference(source, Unreachable("as an oracle"))

    @settings(deadline=None, database=None)
    @given(breakages(answer))
    def check(breakage: Breakage) -> None:
        cashier, adapter = rig.cashier(source, form)
        adapter.breakage = breakage
        failures_before = sum(report.times for report in cashier.failures)
        failed: tuple[str, ...] = ()
        try:
            consultation = rig.runner.run(cashier.consult(REQUEST))
        except RequiredSourceUnavailable as unavailable:
            failed = unavailable.failed
            consultation = None
        except OrderUnknown:
            assert source == "order"
            assert breakage.value is None
            return
        assert failed in ((), (source,)), breakage
        assert consultation is not None or source in REQUIRED
        reports = [report for report in cashier.failures if report.source != source]
        assert not reports, breakage
        statuses = {} if consultation is None else {row.name: row.status for row in consultation.sources}
        status = statuses.pop(source, None)
        # An order that cannot be paid needs no other answer.
        conclusive = {SourceStatus.SKIPPED} if source in REQUIRED and status is SourceStatus.FRESH else set()
        assert set(statuses.values()) <= {SourceStatus.FRESH} | conclusive, breakage
        if status is SourceStatus.FRESH:
            usable = json.loads(json.dumps(breakage.value, default=list)) if breakage.value is not None else None
            if usable is not None:
                assert offered(consultation) == offered(rig.reference(source, usable)), breakage
            assert source == "order" or usable is None or usable.get("user_id", "u_1") == "u_1"
            return
        assert offered(consultation) == offered(failing), breakage
        latest = cashier.failures[0]
        assert sum(report.times for report in cashier.failures) > failures_before
        assert latest.source == source
        assert latest.reason.startswith(f"adapter {MODULE}") or latest.reason == "other reasons", breakage

    check()


@pytest.mark.parametrize("source", list(SPECS))
def test_an_adapter_that_hangs_times_out_alone(rig: Rig, source: str) -> None:
    cashier, adapter = rig.cashier(source, BrokenSecondForm, SHORT_MS)
    adapter.breakage = Breakage("hangs")
    try:
        consultation = rig.runner.run(cashier.consult(REQUEST))
    except RequiredSourceUnavailable as unavailable:
        statuses = {row.name: row.status for row in unavailable.sources}
    else:
        statuses = {row.name: row.status for row in consultation.sources}
        assert offered(consultation) == offered(rig.reference(source, TimedOut("as an oracle")))
    assert statuses.pop(source) is SourceStatus.TIMEOUT
    assert set(statuses.values()) == {SourceStatus.FRESH}
    assert [(report.source, report.reason) for report in cashier.failures] == [(source, "no answer within the timeout")]
