"""The machine of the model test: clients in front of two workers, and what must always hold.

`model_payers` and `model_world_rules` have its rules. The ledger is audited after every step.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextvars import Context
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant
from msgspec.structs import replace

from cashier.consultation.answer import ConsultError
from cashier.domain.order import ConsultRequest
from cashier.domain.payment_resource import FoundPayment, Payment
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.payments.attempt_recovery import ReplacedPayment
from cashier.payments.errors import ConsultChanged, KeyReused
from cashier.sandbox import World, weather_named
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.weather import PaymentFault, PlannedFault
from cashier.tokens.jws import TokenRefused
from tests.payments.model_loop import SkippingLoop
from tests.payments.model_observations import REFUSALS, LedgerTotals, Moment, Observations, ObservedPayment
from tests.payments.model_requests import (
    ABROAD,
    CHINESE,
    ORDERS,
    Offer,
    Submit,
    attempt_request,
    consult_request,
    with_coupons,
)
from tests.payments.model_workers import CallTrace, Upstreams, Worker, owning_task_factory

T = TypeVar("T")
OBSERVED: Counter[str] = Counter()

ANY = st.integers(0, 11)
WORKERS = st.integers(0, 1)
Faults = list[tuple[str, str, Any, int]]


def faults_of(*calls: tuple[str, str]) -> st.SearchStrategy[tuple[str, str, Any, int]]:
    """A fault for the next of these calls, or for the next three: all tries of a look-up."""
    return st.sampled_from(
        [
            (source, call, fault, times)
            for source, call in calls
            for fault in SOURCES[source].possible_faults
            # An engine that says that it seals does so: see `Upstreams`.
            if fault is not PaymentFault.NO_SEAL
            for times in (1, 3)
        ]
    )


# The payers of the model ask for no code again.
CALLS = [(source, call) for source in SOURCES for call in SOURCES[source].calls if call != "resend"]
PAYING = [(source, call) for source, call in CALLS if source in ("risk", "engine", "acquirer")]
FAULTS = faults_of(*CALLS)
SUBMIT_FAULTS = faults_of(("engine", "submit"))
PAYMENT_FAULTS = faults_of(*PAYING)
FAULTS_OF_A_CALL = st.one_of(
    st.just([]),
    SUBMIT_FAULTS.map(lambda fault: [fault]),
    st.lists(st.one_of(SUBMIT_FAULTS, PAYMENT_FAULTS), max_size=3),
)
FAULTS_OF_A_REVERSAL = st.lists(faults_of(("engine", "reverse"), ("acquirer", "read")), max_size=2)
# Of each payment, at the end.
_TOKENS_COMPARED = 5
_LAST_OF_PAYER = 8


class Machine(RuleBasedStateMachine):
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
        self.coupons: dict[str, set[str]] = {}
        self.keys = 0
        self.hours = 0

    @initialize(
        weather_seed=st.integers(0, 99),
        with_store=st.booleans(),
        seals=st.sampled_from([True, True, True, False]),
        cases=st.one_of(
            st.lists(st.sampled_from(CHINESE[1:]), min_size=1, max_size=3, unique=True).map(
                lambda others: [*others, CHINESE[0]]
            ),
            st.lists(st.sampled_from(ABROAD), min_size=1, max_size=3, unique=True),
            st.lists(st.sampled_from(ORDERS), min_size=2, max_size=4, unique=True),
        ),
    )
    def begins(self, weather_seed: int, with_store: bool, seals: bool, cases: list[str]) -> None:
        self.weather = weather_named("calm", weather_seed)
        self.upstreams = Upstreams(
            self.loop, self.world, self.weather, self.observations.record_fault, with_store=with_store, seals=seals
        )
        self.workers = [Worker(self.upstreams), Worker(self.upstreams)]
        self.requests = [consult_request(case) for case in cases]
        for order in range(len(cases)):
            self.consult(order, 0, None)

    def consult(self, order: int, worker: int, coupons: int | None) -> None:
        """`coupons`: see `with_coupons`."""
        own = self.requests[order % len(self.requests)]
        request = with_coupons(own, sorted(self.coupons.get(own.order_id, ())), coupons)
        task = self.workers[worker].begin(self.workers[worker].cashier.consult(request), CallTrace(set()))
        try:
            offer = Offer(request, self.loop.run_until_complete(task))
        except ConsultError as error:
            self.observations.observe_refusal(error, CallTrace(set()))
            return
        self.offers.append(offer)
        for method in offer.consultation.methods:
            listed = method.promotions or ()
            self.coupons.setdefault(request.order_id, set()).update(promotion.promotion_id for promotion in listed)

    def calls_fail(self, faults: Faults) -> None:
        """Inject faults into the next calls."""
        for source, call, fault, times in faults:
            profile = self.weather.profile(source)
            self.weather.change(source, replace(profile, next=(*profile.next, *[PlannedFault(fault, call)] * times)))

    def request_of(self, order_id: str) -> ConsultRequest | None:
        return next((request for request in self.requests if request.order_id == order_id), None)

    # Invariants

    @invariant()
    def the_ledger_is_right(self) -> None:
        self.world.catch_up()
        violations = [*self.world.audit(), *self.observations.ledger_violations()]
        assert not violations, violations

    @invariant()
    def every_report_is_right(self) -> None:
        assert not self.observations.violations, self.observations.violations
        assert not self.workers or not self.upstreams.beside, self.upstreams.beside
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
            if accepted and submit.payment_id not in self.observations.payments and not self._recover(submit):
                continue
            assert not accepted or submit.payment_id in self.observations.payments, (
                f"the engine has {submit.payment_id}, but its client got no payment"
            )
        for number, observed in enumerate(tuple(self.observations.payments.values())):
            if self._query_until_final(observed, number):
                self._every_token_says_the_same(observed)
        self._every_order_is_over()
        self._only_chosen_coupons_were_used()
        self.observations.count_begun({submit.payment_id: submit for submit in self.submits})
        self.every_report_is_right()
        self.the_ledger_is_right()
        self._nothing_is_left()

    def _query_until_final(self, observed: ObservedPayment, number: int) -> bool:
        """Query for ten days. False for a payment whose tokens are all retired or expired.

        Payments that the engine never ends are settled there or cancelled here.
        """
        for query in range(24):
            if not self._refresh_token(observed):
                return False
            self._call(self.workers[0].payments.look(observed.payment_id, observed.tokens[-1]), 0, "waits")
            if observed.status in FINAL:
                return True
            self.loop.advance(min(60.0 * 2**query, 86_400))
            if query == _LAST_OF_PAYER and not self.upstreams.seals:
                self.world.acquirer.close(observed.order_id)
            if query == _LAST_OF_PAYER and number % 2:
                self.world.engine.settle(observed.payment_id, "FAILED")
            elif query == _LAST_OF_PAYER and self._refresh_token(observed):
                self._call(self.workers[0].payments.cancel(observed.payment_id, observed.tokens[-1]), 0, "waits")
        raise AssertionError(f"{observed.payment_id} is {observed.status} after 24 queries and more than ten days")

    def _recover(self, submit: Submit) -> bool:
        """Resume a payment whose consult token was signed with a key that is retired now.

        False for a walk-in: it needs its token.
        """
        request = self.request_of(submit.request.order_id)
        if request is None or request.user_id is None:
            self.observations.counts["stranded walk-in"] += 1
            return False
        self._call(self.workers[0].payments.resume(submit.payment_id, attempt_request(request)), 0, "waits")
        return True

    def _refresh_token(self, observed: ObservedPayment) -> bool:
        """Whether the payment has a token that is still accepted; resume it if it has none."""
        if self._is_accepted(observed, observed.tokens[-1]):
            return True
        request = self.request_of(observed.order_id)
        if request is None or request.user_id is None or self.world.engine.attempt(observed.payment_id) is None:
            self.observations.counts["stranded"] += 1
            return False
        self._call(self.workers[0].payments.resume(observed.payment_id, attempt_request(request)), 0, "waits")
        assert self._is_accepted(observed, observed.tokens[-1]), f"{observed.payment_id} cannot be resumed"
        return True

    def _is_accepted(self, observed: ObservedPayment, token: str) -> bool:
        """False for a token that is expired, or signed with a retired key."""
        try:
            self.workers[0].payments.choice_of(observed.payment_id, token)
        except TokenRefused:
            return False
        return True

    def _every_token_says_the_same(self, observed: ObservedPayment) -> None:
        """All tokens of a payment give the same final status and message.

        But one of a body that the engine does not have is refused: its key was used again.
        """
        if observed.payment_id in LedgerTotals(self.world).forgotten:
            return  # only the worker that saw its end knows that it had one
        said = set()
        for token in observed.tokens[-_TOKENS_COMPARED:]:
            if not self._is_accepted(observed, token):
                continue
            try:
                answer = self._result(self.workers[0].payments.look(observed.payment_id, token))
            except KeyReused:
                attempt = self.world.engine.attempt(observed.payment_id)
                claims = self.workers[0].payments._read_token(observed.payment_id, token)
                assert attempt is not None
                assert attempt.submission.fingerprint != claims.fingerprint, f"{observed.payment_id} has this body"
            else:
                said.add((answer.status, answer.message.code))
        assert len(said) == 1, f"{observed.payment_id} is {said}"

    def _result(self, work: Coroutine[Any, Any, Payment]) -> Payment:
        result: Payment = self.loop.run_until_complete(self.workers[0].begin(work, CallTrace(set())))
        return result

    def _every_order_is_over(self) -> None:
        totals = LedgerTotals(self.world)
        for request in self.requests:
            paid = totals.paid.get(request.order_id, [])
            for submit in self.submits:
                if submit.request.order_id == request.order_id and submit.payment_id not in paid:
                    assert totals.net_taken[submit.payment_id] == 0, submit

    def _only_chosen_coupons_were_used(self) -> None:
        for submit in self.submits:
            attempt, chosen = self.world.engine.attempt(submit.payment_id), submit.request.chosen_promotions
            if attempt is None or chosen is None or attempt.submission.fingerprint != submit.fingerprint:
                continue
            used = {leg.id for leg in attempt.submission.legs if leg.type == "PROMOTION"}
            assert used <= set(chosen), f"{submit.payment_id} used {used}, and {chosen} were chosen"

    def _stop(self, worker: Worker) -> None:
        self.observations.counts["stop"] += 1
        worker.close()
        assert not worker.leftovers, worker.leftovers

    def _nothing_is_left(self) -> None:
        for worker in self.workers:
            self._stop(worker)
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

    def _call(
        self,
        work: Coroutine[Any, Any, Payment | ReplacedPayment],
        worker: int,
        how: str,
        submit: Submit | None = None,
    ) -> None:
        client = self._client(self._await_result(work, self.workers[worker], submit, 0.02 if how == "leaves" else None))
        if how != "meanwhile":
            self.loop.run_until_complete(client)

    def _client(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        client = self.loop.create_task(work, context=Context())
        self.clients.add(client)
        client.add_done_callback(self.clients.discard)
        return client

    async def _await_result(
        self,
        work: Coroutine[Any, Any, Payment | ReplacedPayment],
        worker: Worker,
        submit: Submit | None,
        timeout_s: float | None,
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
            self._note(started, task.result(), submit)
            return
        self.observations.observe_refusal(error, trace)
        if isinstance(error, ConsultChanged) and submit is not None:
            own = next(request for request in self.requests if request.order_id == submit.request.order_id)
            request = replace(own, chosen_promotions=submit.request.chosen_promotions)
            self.offers.append(Offer(request, error.consultation))

    def _note(self, started: Moment, payment: Payment | ReplacedPayment, submit: Submit | None) -> None:
        self.observations.observe(started, payment, submit)
        if isinstance(payment, ReplacedPayment):
            request = self.request_of(payment.order_id)
            if payment.consultation is not None and request is not None:
                self.observations.counts["replaced"] += 1
                self.offers.append(Offer(request, payment.consultation))

    async def _await_found(self, work: Coroutine[Any, Any, FoundPayment], worker: Worker) -> None:
        task = worker.begin(work, CallTrace(set()))
        await asyncio.wait([task])
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self.observations.counts["found"] += 1
        else:
            self.observations.observe_refusal(error, CallTrace(set()))

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
