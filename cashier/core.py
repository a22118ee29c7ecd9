"""Cashier, the public facade: consult, stream, invalidate, reload, payments."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
import structlog
from anyio import to_thread
from msgspec import structs

from cashier.consultation.answer import Consultation, NotOpen
from cashier.consultation.source_evidence import with_failures
from cashier.consultation.source_reachability import source_reachability
from cashier.domain.catalog import Catalog
from cashier.domain.explanation.evidence import Judgement, WhyRequest
from cashier.domain.explanation.explain import explain_in_steps
from cashier.domain.explanation.schema import Explanation
from cashier.domain.order import ConsultRequest, Order
from cashier.fanout.failure_log import FailureReport
from cashier.fanout.l2.interface import Invalidated, Reach, SourceUnknown
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.loop_lag import LoopLagMonitor
from cashier.fanout.reachability import SourceReachability
from cashier.metrics.store import Store
from cashier.payments.budgets import longest_run_ms
from cashier.payments.policy import PaymentPolicy
from cashier.payments.ports import PaymentPort
from cashier.payments.step_feed import StepFeed
from cashier.settings.loader import configuration, load
from cashier.settings.schema import Configuration, all_faults
from cashier.sources.source_upstream import UpstreamFunction
from cashier.telemetry.configuration_history import ConfigurationHistory
from cashier.telemetry.discovery_gauges import DiscoveryGauges
from cashier.telemetry.gauge_sampler import GaugeSampler
from cashier.telemetry.payment_gauges import PaymentGauges
from cashier.telemetry.pseudonyms import Pseudonyms, new_key
from cashier.telemetry.recorder import Recorder
from cashier.telemetry.replay import digest_of, facts_of
from cashier.telemetry.trace_context import caller_headers
from cashier.telemetry.worker_report import loop_state, payments_state, shared_cache_state, source_states
from cashier.telemetry.worker_state import WorkerState
from cashier.tokens.token_service import TokenService
from cashier.wire.reachability import await_reachable
from cashier.wire.transport import CallHeaders, Transport
from cashier.wiring.checks import changes_that_need_a_restart, check_completeness, check_plan
from cashier.wiring.discovery import rediscover
from cashier.wiring.flows import consult_flow, payment_flow, payment_policy, recheck_flow
from cashier.wiring.parts import CoherenceCallbacks, Parts, build_parts, token_service
from cashier.wiring.transports import Resource

_log = structlog.get_logger("cashier")
_CLOSE_S = 5.0


def utc_now() -> datetime:
    return datetime.now(UTC)


class Cashier:
    """The cashier core, open between `__aenter__` and `__aexit__`, on one event loop.

    After a close it can be opened again, also on another loop. Caches and learned statistics then
    start anew; tokens stay valid.

    Build it from a configuration file with `from_config`, or from async functions of your own:

        Cashier(sources={"order": my_order, "merchant": my_merchant, …})

    Each function takes the inputs of its source by name (`order_id`; `merchant_id`; `user_id`;
    `currency`, `country`; …) and returns the contract's answer as a mapping or a struct, or None
    for "there is none". Functions and configured sources mix: `config` may name the others.
    Raises `ConfigurationError` if a source that is not optional is missing, or the configuration is
    wrong.

    `risk`, `engine` and `acquirer`, all three or none, take payments: see `payments`. In `sources`
    each is an object with the methods of its port (`cashier.payments.ports`), or a function that
    takes a whole `Request` and returns a `Response` (`cashier.wire.in_process`).

    `ladder`: what to leave undone while the event loop is overloaded. Without one nothing is left
    undone, because an embedding program's loop may be busy with other work.
    `metrics`: where this process counts; see the attribute.
    `pseudonyms`: of the ids in records; those of one service share a key.
    `clock`: the time of day, for simulations.
    """

    _parts: Parts

    def __init__(
        self,
        *,
        sources: Mapping[str, UpstreamFunction | PaymentPort] | None = None,
        config: Configuration | Mapping[str, Any] | None = None,
        ladder: DegradationLadder | None = None,
        metrics: Store | None = None,
        pseudonyms: Pseudonyms | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if not isinstance(config, Configuration):
            config = configuration(config or {}, "the configuration handed in")
        self._clock = clock
        # Takes the steps of payments for operators, in a service with an operations port.
        self.payment_steps = StepFeed(clock)
        self._given = sources or {}
        self._ladder = ladder
        # What this process has counted: `metrics.snapshot()`, or `metrics.render()` as text.
        self._pseudonyms = pseudonyms or Pseudonyms(new_key())
        if metrics is None:
            metrics = Store(enabled=config.settings.operations.enabled) if ladder is None else ladder.metrics
        self.metrics = metrics
        self._loop_lag = LoopLagMonitor(ladder) if ladder is not None else None
        self._started_at = time.time()
        self.configuration_history = ConfigurationHistory(config)
        self._open: AsyncExitStack | None = None
        # `_in_use`: opening, open or closing. `_used`: the parts were opened before.
        self._in_use = self._used = False
        with all_faults() as noting:
            with noting():
                check_plan(config, self._given)
            with noting():
                self._tokens = token_service(config)
                self._build(config)

    @classmethod
    def from_config(
        cls,
        path: str | os.PathLike[str],
        *,
        sources: Mapping[str, UpstreamFunction | PaymentPort] | None = None,
    ) -> Self:
        """Build from `cashier.toml` and the files beside it.

        `sources` replace configured ones of the same name.
        """
        return cls(sources=sources, config=load(path))

    @property
    def ready(self) -> bool:
        return self._open is not None

    @property
    def sources_reached(self) -> bool:
        """Every required source has accepted a connection since the start, or was waited for.

        Never turns false again, because a source that fails is no fault of this service.
        """
        return self._sources_reached

    def reachability(self) -> tuple[SourceReachability, ...]:
        """Which sources and payment services are configured and can be called, as far as known.

        Makes no call and opens no connection.
        """
        return source_reachability(self.pipelines, self._parts.network, payments=self.payments is not None)

    @property
    def failures(self) -> tuple[FailureReport, ...]:
        """Why upstreams gave no answer since the opening, the latest reason first."""
        return self._parts.failures.reports()

    @property
    def tokens(self) -> TokenService:
        """Signs and reads all tokens of the service."""
        return self._tokens

    @property
    def recorder(self) -> Recorder:
        """The records of the last sampled or bad consultations: `recorder.records()`."""
        return self._parts.recorder

    async def __aenter__(self) -> Self:
        if self._in_use:
            raise RuntimeError("this Cashier is already open: it serves one `async with` at a time")
        self._in_use = True
        try:
            if self._used:
                # A closed transport, cache or payment flow stays closed.
                self._build(self.config)
            self._used = True
            self._open = await self._open_parts()
        except BaseException:
            self._in_use = False
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stack, self._open = self._open, None
        if stack is not None:
            try:
                await stack.aclose()
            finally:
                self._in_use = False

    async def consult(
        self,
        request: ConsultRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        since_ns: int | None = None,
        decoded: bool = False,
    ) -> Consultation:
        """Return the order's payment methods by the request's deadline, or the configured one.

        The deadline counts from now, or from `since_ns` (`time.perf_counter_ns`) if the caller has
        waited since then. `decoded`: msgspec has decoded the request, and so checked its bounds.
        Raises `OrderUnknown`, `RequiredSourceUnavailable`, `NotOpen`; msgspec.ValidationError for a
        request out of bounds.
        """
        checked = self._checked(request, decoded=decoded)
        return await self._consult(checked, self._consult_headers(request_id, traceparent), since_ns)

    def stream(
        self, request: ConsultRequest, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Consultation, None]:
        """Yield an answer as soon as it is usable, then a better one when a late source changes it.

        The last one equals the result of `consult`. Raises the same errors, only before the first
        answer. Close the generator (`contextlib.aclosing`) if you stop early.
        """
        return self._consult.stream(self._checked(request), self._consult_headers(request_id, traceparent))

    async def why(
        self,
        question: WhyRequest,
        *,
        internals: bool = True,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Explanation:
        """Explain what `consult` would answer now: every rule about every kind and method.

        Asks the sources, within the deadline, and changes nothing else: no payer's consultation is
        counted, nothing is learned. Answers too if the order is unknown or a required source is
        silent. `internals`: with what only the operator may see: costs, scores, routes and the
        addresses of sources. Raises `NotOpen`.
        """
        checked = self._checked(question.consult_request(None))
        flow, config = self._recheck if question.fresh else self._consult, self.config
        evidence = await flow.evidence(checked, _call_headers(request_id, traceparent))
        order = evidence.answers["order"]
        if isinstance(order, Order):
            evidence = structs.replace(evidence, request=question.consult_request(order))
        if internals:
            evidence = structs.replace(evidence, sources=with_failures(evidence.sources, self.failures))
        records = {} if self.payments is None else self.payments.channel_health.records
        judgement = Judgement(
            config.catalog, config.weights, config.routing, dict(records), int(self._monotonic()), internals
        )
        return await _step_by_step(explain_in_steps(evidence, judgement))

    @property
    def catalog(self) -> Catalog:
        """The payment kinds and texts of the present configuration."""
        return self.config.catalog

    def invalidate(self, source: str, *, key: str | None = None, prefix: str | None = None) -> Invalidated:
        """Drop the cached answers of a source under a key, or under all keys with a prefix.

        Returns at once. The other workers follow, if they share a cache: see `ainvalidate`.
        Keys look like `u_1`, `CNY/CN`, `u_1/m_1/CNY/12800`; a `/` in a part is written `%2F`, a `%`
        `%25`. The prefix `u_1/` covers `u_1` and what is below it; `u_1` covers `u_10` too.
        Raises `SourceUnknown`; ValueError for neither or both.
        """
        dropped = self._drop_here(source, key, prefix)
        if self._parts.valkey is not None:
            self._parts.valkey.drop(source, key=key, prefix=prefix)
        return Invalidated(source, dropped, Reach.THIS_WORKER)

    async def ainvalidate(self, source: str, *, key: str | None = None, prefix: str | None = None) -> Invalidated:
        """As `invalidate`, but wait, at most a second, until the shared cache confirms it.

        `ALL_WORKERS`: the shared cache has invalidated what it stores and has sent the message to
        every worker. `THIS_WORKER`: not within the second; it is still sent as soon as possible.
        """
        dropped = self._drop_here(source, key, prefix)
        valkey = self._parts.valkey
        everywhere = valkey is not None and await valkey.adrop(source, key=key, prefix=prefix)
        return Invalidated(source, dropped, Reach.ALL_WORKERS if everywhere else Reach.THIS_WORKER)

    def reload(self, config: Configuration) -> tuple[str, ...]:
        """Apply new source numbers, discovery, catalog, texts and ranking.

        Keeps requests under way and everything learned. Returns one sentence for each difference
        that takes a restart: addresses, transports, tokens, the server. Raises
        `ConfigurationError`, and changes nothing, if the configuration cannot keep its deadline, or
        lacks a source.
        """
        with all_faults() as noting:
            with noting():
                check_completeness(config, self._given)
            with noting():
                check_plan(config, self._given)
        needs_restart = tuple(changes_that_need_a_restart(self._built, config))
        rediscover(self._parts, self._built, config)
        self.config = config
        for pipeline in self.pipelines.values():
            pipeline.reconfigure(config.settings)
        policy = self._bind(config)
        if self.payments is not None:
            self.payments.policy = policy
        self.recorder.reconfigure(config.settings.telemetry)
        if self._parts.tracing is not None:
            self._parts.tracing.reconfigure(config.settings.telemetry)
        self.configuration_history.record_applied(config, needs_restart)
        return needs_restart

    def state(self) -> WorkerState:
        """What operators see of this worker beside its metrics. Takes about a millisecond."""
        valkey = self._parts.valkey
        return WorkerState(
            pid=os.getpid(),
            started_at=self._started_at,
            at=time.time(),
            sources=source_states(self.pipelines, self.config.settings, self.failures, self._parts.network),
            loop=None if self._ladder is None else loop_state(self._ladder),
            configuration=self.configuration_history.state(),
            payments=None if self.payments is None else payments_state(self.payments.watched()),
            shared_cache=None if valkey is None else shared_cache_state(valkey),
        )

    async def _open_parts(self) -> AsyncExitStack:
        """What closes them again."""
        valkey = self._parts.valkey
        async with AsyncExitStack() as stack:
            if self._parts.tracing is not None:
                exporter = self._parts.tracing.exporter
                # It waits for the collector, within a bound.
                stack.push_async_callback(lambda: to_thread.run_sync(exporter.stop))
                exporter.start()
            stack.callback(self._parts.resolver.close)
            stack.push_async_callback(_close, (*self._parts.transports, *self._parts.resources))
            sampler = self._gauge_sampler()
            if self.metrics.enabled:
                stack.callback(sampler.stop)  # after the calls have ended
            stack.callback(self._close_pipelines)
            if valkey is not None:
                stack.push_async_callback(valkey.close)
            stack.push_async_callback(self._drain_payments)
            if valkey is not None:
                await valkey.open()
            await asyncio.gather(*(resource.open() for resource in self._parts.resources))
            # In the background: a source that does not answer must not delay the start.
            stack.push_async_callback(_cancel, asyncio.create_task(self._connect()))
            if self._loop_lag is not None:
                self._loop_lag.start()
                stack.callback(self._loop_lag.stop)
            if self.metrics.enabled:
                sampler.start()
            return stack.pop_all()

    def _gauge_sampler(self) -> GaugeSampler:
        """Measures the lag of the loop where no `LoopLagMonitor` does."""
        samples: list[Callable[[], None]] = [self._parts.answers.sample]
        samples += [pipeline.guard.sample for pipeline in self.pipelines.values()]
        samples.append(DiscoveryGauges(self.metrics, self._parts.network).sample)
        if self._parts.valkey is not None:
            samples.append(self._parts.valkey.sample)
        if self.payments is not None:
            gauges = PaymentGauges(self.metrics, self.payments.watched, lambda: self._clock().timestamp())
            samples.append(gauges.sample)
        measured = self._ladder is not None and self._ladder.settings.enabled
        return GaugeSampler(
            samples, self.metrics, None if measured else self.metrics.histogram("cashier_loop_lag_seconds")
        )

    def _build(self, config: Configuration) -> None:
        # `_built`: what the parts that cannot change at run time were made from.
        self.config = self._built = config
        self._parts = build_parts(
            config,
            self._given,
            self._tokens,
            self._ladder or DegradationLadder(),
            self.metrics,
            CoherenceCallbacks(self._drop_cached, self._drop_all_cached, self._distrust_cached),
        )
        self._sources_reached = not self._parts.required
        self.pipelines = self._parts.pipelines
        tracing = self._parts.tracing
        self._consult_headers = _call_headers if tracing is None else tracing.traced(_call_headers)
        for pipeline in self.pipelines.values():
            pipeline.guard.on_recovery = self._probe_soon
        self.payments = payment_flow(
            self._parts,
            self._bind(config),
            self._clock,
            self._monotonic,
            _call_headers,
            self.payment_steps,
        )

    def _monotonic(self) -> float:
        """Seconds, of the clock of payments and of what is learned about channels."""
        return time.monotonic() if self._clock is utc_now else self._clock().timestamp()

    def _checked(self, request: ConsultRequest, *, decoded: bool = False) -> ConsultRequest:
        if self._open is None:
            raise NotOpen("this Cashier is not open: use it inside `async with`")
        if decoded:
            return request
        checked: ConsultRequest = msgspec.convert(msgspec.to_builtins(request), ConsultRequest)
        return checked

    def _bind(self, config: Configuration) -> PaymentPolicy:
        """Bind plan and flow to the current numbers of the pipelines, and return the policy."""
        self.plan, self._consult = consult_flow(self._parts, config, self._clock)
        self._recheck = recheck_flow(self._parts, config, self._clock)
        digest = digest_of(config.catalog, config.weights)
        self.recorder.replay_facts = partial(facts_of, digest=digest, pseudonyms=self._pseudonyms)
        return payment_policy(config, self._recheck)

    async def _connect(self) -> None:
        """Open connections ahead, and wait for the required sources."""
        wait_s = self._built.settings.server.ready_wait_s
        async with anyio.create_task_group() as opening:
            for transport in self._parts.transports:
                opening.start_soon(transport.open)
            try:
                missing = await await_reachable(self._parts.required, wait_s)
            finally:
                self._sources_reached = True
            if missing:
                _log.warning("ready without a connection to every required source", missing=missing, waited_s=wait_s)

    async def _drain_payments(self) -> None:
        """Release waiting callers; give payments under way time to end: they may move money.

        A payment that takes longer than every budget together is looked up by the next caller.
        """
        if self.payments is None:
            return
        self.payments.stop_waiting()
        longest_s = longest_run_ms(self.config.settings.accept_in_effect) / 1_000
        with anyio.move_on_after(longest_s, shield=True) as bound:
            await self.payments.drain()
        if bound.cancelled_caught:
            _log.warning("payments were still under way at the stop; a retry looks them up", left=repr(self.payments))

    def _close_pipelines(self) -> None:
        for pipeline in self.pipelines.values():
            pipeline.close()

    def _drop_here(self, source: str, key: str | None, prefix: str | None) -> int:
        if (key is None) == (prefix is None):
            raise ValueError("an invalidation names either a key or a prefix")
        if source not in self.pipelines:
            raise SourceUnknown(source, tuple(self.pipelines))
        return self.pipelines[source].cache.drop(key=key, prefix=prefix)

    def _drop_cached(self, source: str, key: str | None, prefix: str | None) -> None:
        if source in self.pipelines:  # workers of another version may have other sources
            self.pipelines[source].cache.drop(key=key, prefix=prefix)

    def _drop_all_cached(self) -> None:
        """Invalidations may have been missed, so no cached answer can be trusted.

        The shared cache is back, and so may be what was lost together with it.
        """
        for pipeline in self.pipelines.values():
            pipeline.cache.drop(prefix="")
        self._probe_soon()

    def _probe_soon(self) -> None:
        """Something answers again: a pause that grew in a long outage must not go on."""
        for pipeline in self.pipelines.values():
            pipeline.guard.probe_soon()

    def _distrust_cached(self) -> None:
        """Invalidations may be missed from now on."""
        for pipeline in self.pipelines.values():
            pipeline.cache.distrust()


def _call_headers(request_id: str | None, traceparent: str | None) -> CallHeaders:
    return caller_headers(request_id or uuid.uuid4().hex, traceparent)


async def _step_by_step(steps: Generator[None, None, Explanation]) -> Explanation:
    """Let other requests run between two steps: an operator's question must delay no payer."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            explanation: Explanation = end.value
            return explanation
        await asyncio.sleep(0)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def _close(opened: Sequence[Transport | Resource]) -> None:
    """Close all at once. An upstream that does not let go must not block the stop."""
    with anyio.move_on_after(_CLOSE_S, shield=True) as bound:
        async with anyio.create_task_group() as closing:
            for each in opened:
                closing.start_soon(each.close)
    if bound.cancelled_caught:
        _log.warning("connections to upstreams did not close in time", waited_s=_CLOSE_S)
