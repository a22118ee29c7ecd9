"""Model test: random payers, retries, faults, crashes and clock jumps against two workers.

The ledger is audited after every step. By default a few fixed histories; `--proof` runs hundreds of
new ones.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextvars import Context
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from cashier.consultation.flow import ConsultError
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.payments.errors import ConsultChanged
from cashier.sandbox import World, weather_named
from cashier.sandbox.risk import CHALLENGE_ANSWER
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.weather import PlannedFault
from tests.payments.model_loop import SkippingLoop
from tests.payments.model_observations import REFUSALS, LedgerTotals, Observations, ObservedPayment
from tests.payments.model_requests import ABROAD, CHINESE, ORDERS, Offer, Submit, Tampering, consult_request, new_submit
from tests.payments.model_workers import CallTrace, Upstreams, Worker, owning_task_factory

T = TypeVar("T")
# Histories within one seed are much alike.
SEEDS = 8
OBSERVED: Counter[str] = Counter()

ANY = st.integers(0, 11)
METHODS = st.integers(1, 40)
WORKERS = st.integers(0, 1)
# A client waits for the result, continues meanwhile, or disconnects after 20 ms.
WAITING = st.sampled_from(["waits", "meanwhile", "meanwhile", "leaves"])
Faults = list[tuple[str, str, Any, int]]


def faults_of(*calls: tuple[str, str]) -> st.SearchStrategy[tuple[str, str, Any, int]]:
    """A fault for the next of these calls, or for the next three: all tries of a look-up."""
    return st.sampled_from(
        [
            (source, call, fault, times)
            for source, call in calls
            for fault in SOURCES[source].possible_faults
            for times in (1, 3)
        ]
    )


PAYING = [(source, call) for source in ("risk", "engine", "acquirer") for call in SOURCES[source].calls]
FAULTS = faults_of(*[(source, call) for source in SOURCES for call in SOURCES[source].calls])
SUBMIT_FAULTS = faults_of(("engine", "submit"))
PAYMENT_FAULTS = faults_of(*PAYING)
FAULTS_OF_A_CALL = st.one_of(
    st.just([]),
    SUBMIT_FAULTS.map(lambda fault: [fault]),
    st.lists(st.one_of(SUBMIT_FAULTS, PAYMENT_FAULTS), max_size=3),
)
RIGHT = st.sampled_from([True, True, False])
# None: cancel instead.
WAITS_MS = st.sampled_from([0, None, None, 900, 30_000])
# A payment token can be used for seven days after the payer's deadline. The model's payers query in
# time; test_token_refusals has the others.
MAX_HOURS = 120
TAMPERINGS = st.sampled_from([*Tampering] + [Tampering.HONEST] * 8)


class PaymentMachine(RuleBasedStateMachine):
    """Payers and a shop in front of two workers."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SkippingLoop()
        self.loop.set_task_factory(owning_task_factory)
        self.world = World(seed=7, clock=self.loop.utc_now)
        self.observations = Observations(self.world, self.loop.time)
        self.clients: set[asyncio.Task[None]] = set()
        self.offers: list[Offer] = []
        self.submits: list[Submit] = []
        self.workers: list[Worker] = []
        self.keys = 0
        self.hours = 0

    @initialize(
        weather_seed=st.integers(0, 99),
        with_store=st.booleans(),
        cases=st.one_of(
            st.lists(st.sampled_from(CHINESE[1:]), min_size=1, max_size=3, unique=True).map(
                lambda others: [*others, CHINESE[0]]
            ),
            st.lists(st.sampled_from(ABROAD), min_size=1, max_size=3, unique=True),
            st.lists(st.sampled_from(ORDERS), min_size=2, max_size=4, unique=True),
        ),
    )
    def begins(self, weather_seed: int, with_store: bool, cases: list[str]) -> None:
        self.weather = weather_named("calm", weather_seed)
        self.upstreams = Upstreams(self.loop, self.world, self.weather, with_store, self.observations.record_fault)
        self.workers = [Worker(self.upstreams), Worker(self.upstreams)]
        self.requests = [consult_request(case) for case in cases]
        for order in range(len(cases)):
            self.consults(order, 0)

    # Payers

    @rule(order=ANY, worker=WORKERS)
    def consults(self, order: int, worker: int) -> None:
        request = self.requests[order % len(self.requests)]
        task = self.workers[worker].begin(self.workers[worker].cashier.consult(request), CallTrace(set()))
        try:
            self.offers.append(Offer(request, self.loop.run_until_complete(task)))
        except ConsultError as error:
            self.observations.observe_refusal(error, CallTrace(set()))

    @precondition(lambda self: self.offers)
    @rule(
        faults=FAULTS_OF_A_CALL,
        offer=ANY,
        method=METHODS,
        key=st.integers(0, 5),
        means=st.integers(0, 8),
        tampering=TAMPERINGS,
        worker=WORKERS,
        how=WAITING,
    )
    def submits_new(
        self, faults: Faults, offer: int, method: int, key: int, means: int, tampering: Tampering, worker: int, how: str
    ) -> None:
        """With a new key, or one that was used before."""
        self.calls_fail(faults)
        self.keys += 1
        submit = new_submit(
            self.offers[-1 - offer % len(self.offers)],
            method,
            f"k{key if key < 2 else self.keys + 10}",
            means,
            tampering,
        )
        if submit is not None:
            self._submit(submit, worker, how)

    @precondition(lambda self: self.offers)
    @rule(faults=FAULTS_OF_A_CALL, offer=ANY, method=METHODS, means=st.integers(0, 8), worker=WORKERS)
    def submits_and_waits(self, faults: Faults, offer: int, method: int, means: int, worker: int) -> None:
        """The common case."""
        self.submits_new(faults, offer, method, 5, means, Tampering.HONEST, worker, "waits")

    @precondition(lambda self: self.submits)
    @rule(faults=FAULTS_OF_A_CALL, which=ANY, worker=WORKERS, how=WAITING, other_tab=st.booleans())
    def submits_again(self, faults: Faults, which: int, worker: int, how: str, other_tab: bool) -> None:
        self.calls_fail(faults)
        submit = self._pick(self.submits, which)
        if other_tab:
            self._submit(submit, 1 - worker, "meanwhile")
        self._submit(submit, worker, how)

    @precondition(lambda self: self.observations.payments)
    @rule(
        faults=FAULTS_OF_A_CALL, which=ANY, token=ANY, right=RIGHT, worker=WORKERS, how=WAITING, other_tab=st.booleans()
    )
    def answers(
        self, faults: Faults, which: int, token: int, right: bool, worker: int, how: str, other_tab: bool
    ) -> None:
        """Answer the challenge, also if it is over; sometimes in two tabs at once."""
        self.calls_fail(faults)
        observed = self._pick_payment(which, PaymentStatus.CHALLENGE)
        value, identity = (
            CHALLENGE_ANSWER if right else "000000",
            (observed.payment_id, self._pick(observed.tokens, token)),
        )
        if other_tab:
            self._call(self.workers[1 - worker].payments.answer(*identity, value), 1 - worker, "meanwhile")
        self._call(self.workers[worker].payments.answer(*identity, value), worker, how)

    @precondition(lambda self: self.observations.payments)
    @rule(faults=FAULTS_OF_A_CALL, which=ANY, token=ANY, wait_ms=WAITS_MS, worker=WORKERS, how=WAITING)
    def looks_or_cancels(
        self, faults: Faults, which: int, token: int, wait_ms: int | None, worker: int, how: str
    ) -> None:
        self.calls_fail(faults)
        payments = self.workers[worker].payments
        observed = self._pick_payment(which, PaymentStatus.ACTION_REQUIRED if wait_ms is None else None)
        identity = (observed.payment_id, self._pick(observed.tokens, token))
        started, refused = self.observations.mark(), self.observations.counts["TokenRefused"]
        self._call(
            payments.cancel(*identity) if wait_ms is None else payments.look(*identity, wait_ms=wait_ms), worker, how
        )
        answered = how == "waits" and refused == self.observations.counts["TokenRefused"]
        if wait_ms is None and answered and not self.observations.may_be_silent_since(started):
            assert observed.payment_id not in self.world.engine.live, (
                f"{observed.payment_id} was cancelled, but is live"
            )

    @precondition(lambda self: self.observations.payments)
    @rule(which=ANY, token=ANY, worker=WORKERS)
    def follows(self, which: int, token: int, worker: int) -> None:
        observed = self._pick_payment(which)
        self._client(self._follow(observed.payment_id, self._pick(observed.tokens, token), worker))

    @precondition(lambda self: self.world.engine.live)
    @rule(
        which=ANY,
        result=st.sampled_from(["SUCCEEDED", "SUCCEEDED", "FAILED"]),
        excess=st.sampled_from([None, None, -1, 1]),
    )
    def acts_elsewhere(self, which: int, result: Any, excess: int | None) -> None:
        """At a bank, in a wallet, at a counter: the payer pays, declines, underpays or overpays."""
        payment_id = self._pick(sorted(self.world.engine.live), which)
        attempt = self.world.engine.attempt(payment_id)
        assert attempt is not None
        paid = None if excess is None else max(0, attempt.carried.value + excess * 100)
        self.world.catch_up()
        self.world.engine.settle(payment_id, result, paid)

    @precondition(lambda self: self.submits)
    @rule(which=ANY)
    def pays_too_late(self, which: int) -> None:
        """Banks and counters also take money for an expired code."""
        self.world.catch_up()
        self.world.engine.settle(self._pick(self.submits, which).payment_id, "SUCCEEDED")

    # The world

    @precondition(lambda self: self.world.engine.live)
    @rule(which=ANY)
    def the_shop_closes_an_order(self, which: int) -> None:
        attempt = self.world.engine.attempt(self._pick(sorted(self.world.engine.live), which))
        assert attempt is not None
        self.world.acquirer.close(attempt.submission.order_id)

    @rule(seconds=st.sampled_from([0.01, 0.1, 1, 3, 6, 31, 50, 290, 901]))
    def time_passes(self, seconds: float) -> None:
        self.loop.advance(seconds)

    @precondition(lambda self: self.observations.payments and self.hours < MAX_HOURS)
    @rule(hours=st.sampled_from([1, 2, 5, 25]))
    def hours_pass(self, hours: int) -> None:
        self.hours += hours
        self.loop.advance(3_600 * hours)

    @rule(faults=st.lists(st.one_of(FAULTS, PAYMENT_FAULTS), min_size=1, max_size=3))
    def calls_fail(self, faults: Faults) -> None:
        """Inject faults into the next calls."""
        for source, call, fault, times in faults:
            profile = self.weather.profile(source)
            self.weather.change(source, replace(profile, next=(*profile.next, *[PlannedFault(fault, call)] * times)))

    @rule(service=st.sampled_from(["risk", "engine", "engine", "acquirer"]))
    def refuses_the_connection(self, service: str) -> None:
        self.upstreams.refusing.add(service)

    @rule()
    def the_weather_clears(self) -> None:
        self._clear()

    @precondition(lambda self: self.clients)
    @rule(worker=WORKERS, after_ms=st.integers(0, 60), turns=st.integers(0, 12))
    def a_worker_is_killed(self, worker: int, after_ms: int, turns: int) -> None:
        """Kill it at any await. Its replacement starts without state."""
        self.loop.advance(after_ms / 1000)
        self.loop.turn(turns)
        self.workers[worker].kill()
        self.workers[worker] = Worker(self.upstreams)

    @precondition(lambda self: self.workers and self.upstreams.store)
    @rule(what=st.sampled_from(["forget", "lose", "find"]))
    def the_store_fails(self, what: str) -> None:
        store = self.upstreams.store
        assert store is not None
        if what == "forget":
            store.forget()
        else:
            store.lost = what == "lose"

    # Invariants

    @invariant()
    def the_ledger_is_right(self) -> None:
        self.world.catch_up()
        violations = [*self.world.audit(), *self.observations.ledger_violations()]
        assert not violations, violations

    @invariant()
    def every_report_is_right(self) -> None:
        assert not self.observations.violations, self.observations.violations
        # The exception handler gets the refusals of disconnected clients. Anything else is a bug.
        bugs = [context for context in self.loop.errors if not isinstance(context.get("exception"), REFUSALS)]
        assert not bugs, bugs

    def teardown(self) -> None:
        try:
            if self.workers:
                self._end()
        finally:
            OBSERVED.update(self.observations.counts)
            for worker in self.workers:
                worker.kill()
            for client in self.clients:
                client.cancel()
            self.loop.turn(50)
            self.loop.close()

    def _end(self) -> None:
        """Clear all faults, then retry and query until every payment is final."""
        self._clear()
        self.loop.advance(0.5)
        if self.clients:
            self.loop.run_until_complete(asyncio.wait(self.clients))
        for submit in tuple(self.submits):
            if submit.payment_id not in self.observations.payments:
                self._submit(submit, 0, "waits")
            attempt = self.world.engine.attempt(submit.payment_id)
            accepted = attempt is not None and attempt.submission.fingerprint == submit.fingerprint
            assert not accepted or submit.payment_id in self.observations.payments, (
                f"the engine has {submit.payment_id}, but its client got no payment"
            )
        for number, observed in enumerate(tuple(self.observations.payments.values())):
            self._query_until_final(observed, number)
        self._every_order_is_over()
        self.every_report_is_right()
        self.the_ledger_is_right()
        self._nothing_is_left()

    def _query_until_final(self, observed: ObservedPayment, number: int) -> None:
        """Query for ten days.

        Payments that the engine never ends are settled there or cancelled here.
        """
        for query in range(24):
            self._call(self.workers[0].payments.look(observed.payment_id, observed.tokens[-1]), 0, "waits")
            if observed.status in FINAL:
                return
            self.loop.advance(min(60.0 * 2**query, 86_400))
            if query == 12 and number % 2:
                self.world.engine.settle(observed.payment_id, "FAILED")
            elif query == 12:
                self._call(self.workers[0].payments.cancel(observed.payment_id, observed.tokens[-1]), 0, "waits")
        raise AssertionError(f"{observed.payment_id} is {observed.status} after 24 queries and more than ten days")

    def _every_order_is_over(self) -> None:
        totals = LedgerTotals(self.world)
        for request in self.requests:
            paid = totals.paid.get(request.order_id, [])
            for submit in self.submits:
                if submit.request.order_id == request.order_id and submit.payment_id not in paid:
                    assert totals.net_taken[submit.payment_id] == 0, submit

    def _nothing_is_left(self) -> None:
        for worker in self.workers:
            worker.close()
            assert worker.leftovers == []
        assert self.loop.pending_timers == 0

    def _clear(self) -> None:
        self.weather.restore()
        self.upstreams.refusing.clear()
        if self.upstreams.store is not None:
            self.upstreams.store.lost = False

    # Clients

    def _submit(self, submit: Submit, worker: int, how: str) -> None:
        self.submits.append(submit)
        self.observations.fingerprints.setdefault(submit.payment_id, set()).add(submit.fingerprint)
        if submit.request.device is not None:
            self.observations.with_device.add(submit.payment_id)
        self._call(self.workers[worker].payments.submit(submit.request, submit.key), worker, how, submit)

    def _call(self, work: Coroutine[Any, Any, Payment], worker: int, how: str, submit: Submit | None = None) -> None:
        client = self._client(self._await_result(work, self.workers[worker], submit, 0.02 if how == "leaves" else None))
        if how != "meanwhile":
            self.loop.run_until_complete(client)

    def _client(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        client = self.loop.create_task(work, context=Context())
        self.clients.add(client)
        client.add_done_callback(self.clients.discard)
        return client

    async def _await_result(
        self, work: Coroutine[Any, Any, Payment], worker: Worker, submit: Submit | None, timeout_s: float | None
    ) -> None:
        """Record the result, unless the client disconnects or the connection breaks."""
        started, trace = self.observations.mark(), CallTrace(set())
        task = worker.begin(work, trace)
        await asyncio.wait([task], timeout=timeout_s)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if task.cancelled():
            self.observations.counts["cut off"] += 1
            return
        error = task.exception()
        if error is None:
            self.observations.observe(started, task.result(), submit)
            return
        self.observations.observe_refusal(error, trace)
        if isinstance(error, ConsultChanged) and submit is not None:
            request = next(request for request in self.requests if request.order_id == submit.request.order_id)
            self.offers.append(Offer(request, error.consultation))

    async def _follow(self, payment_id: str, payment_token: str, worker: int) -> None:
        payments = self.workers[worker].payments

        async def follow() -> None:
            started = self.observations.mark()
            async for payment in payments.follow(payment_id, payment_token):
                self.observations.observe(started, payment)
                started = self.observations.mark()

        task = self.workers[worker].begin(follow(), CallTrace(set()))
        await asyncio.wait([task])
        if not task.cancelled() and isinstance(error := task.exception(), REFUSALS):
            self.observations.observe_refusal(error, CallTrace(set()))
        elif not task.cancelled():
            task.result()

    def _pick_payment(self, which: int, status: PaymentStatus | None = None) -> ObservedPayment:
        """Prefer payments with this last reported status."""
        payments = list(self.observations.payments.values())
        return self._pick([observed for observed in payments if observed.status is status] or payments, which)

    @staticmethod
    def _pick(items: Sequence[T], which: int) -> T:
        """Mostly the newest."""
        return items[-1 - which % len(items)]


@pytest.mark.hypothesis
def test_no_history_breaks_a_guarantee(pytestconfig: pytest.Config) -> None:
    times: int = pytestconfig.getoption("proof")
    histories = settings(
        max_examples=25 * times or 4,
        stateful_step_count=40,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    for number in range(SEEDS):
        run_state_machine_as_test(PaymentMachine if times else seed(number)(PaymentMachine), settings=histories)
    # The histories must reach every status.
    assert {status for status in PaymentStatus if OBSERVED[status]} == set(PaymentStatus), OBSERVED
