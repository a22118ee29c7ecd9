"""Rules of the model's payers: consult, submit, answer, query, cancel, recover a lost attempt."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from cashier.domain.payment_state import PaymentStatus
from cashier.payments.attempt_recovery import ReplacedPayment
from cashier.sandbox.risk import CHALLENGE_ANSWER
from tests.payments.model_machine import ANY, FAULTS_OF_A_CALL, FAULTS_OF_A_REVERSAL, WORKERS, Faults, Machine
from tests.payments.model_requests import Tampering, attempt_request, new_submit

METHODS = st.integers(1, 40)
# A client waits for the result, continues meanwhile, or disconnects after 20 ms.
WAITING = st.sampled_from(["waits", "meanwhile", "meanwhile", "leaves"])
RIGHT = st.sampled_from([True, True, False])
# None: cancel instead.
WAITS_MS = st.sampled_from([0, None, None, 900, 30_000])
TAMPERINGS = st.sampled_from([*Tampering] + [Tampering.HONEST] * 8)
# Mostly the payer leaves the choice to the service.
COUPONS = st.one_of(st.none(), st.none(), st.integers(0, 63))


class PayerRules(Machine):
    @rule(order=ANY, worker=WORKERS, coupons=COUPONS)
    def consults(self, order: int, worker: int, coupons: int | None) -> None:
        self.consult(order, worker, coupons)

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

    @precondition(lambda self: self.offers)
    @rule(offer=ANY, methods=st.tuples(METHODS, METHODS), means=st.integers(0, 8), worker=WORKERS)
    def submits_two_keys_at_once(self, offer: int, methods: tuple[int, int], means: int, worker: int) -> None:
        """Two tabs of one order, at one worker."""
        chosen = self.offers[-1 - offer % len(self.offers)]
        for method in methods:
            self.keys += 1
            submit = new_submit(chosen, method, f"k{self.keys + 10}", means, Tampering.HONEST)
            if submit is not None:
                self._submit(submit, worker, "meanwhile")

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

    @precondition(lambda self: self.observations.payments)
    @rule(faults=FAULTS_OF_A_CALL, which=ANY, worker=WORKERS, how=WAITING, step=st.sampled_from(["find", "resume"]))
    def recovers_a_lost_tab(self, faults: Faults, which: int, worker: int, how: str, step: str) -> None:
        """Without any token."""
        self.calls_fail(faults)
        observed, payments = self._pick_payment(which), self.workers[worker].payments
        request = self.request_of(observed.order_id)
        if request is None or request.user_id is None:
            return
        if step == "resume":
            self.observations.counts["asked to resume"] += 1
            self._call(payments.resume(observed.payment_id, attempt_request(request)), worker, how)
            return
        found = payments.find(observed.order_id, merchant_id=request.merchant_id, user_id=request.user_id)
        self._client(self._await_found(found, self.workers[worker]))

    @precondition(lambda self: self.observations.payments)
    @rule(faults=FAULTS_OF_A_REVERSAL, which=ANY, worker=WORKERS, how=WAITING, other_tab=st.booleans())
    def replaces_an_attempt(self, faults: Faults, which: int, worker: int, how: str, other_tab: bool) -> None:
        """Sometimes in two tabs at once. The payer chooses again from the fresh consultation."""
        self.calls_fail(faults)
        observed = self._pick_payment(which, PaymentStatus.ACTION_REQUIRED)
        request = self.request_of(observed.order_id)
        if request is None or request.user_id is None:
            return

        def replacement(worker: int) -> Coroutine[Any, Any, ReplacedPayment]:
            work: Coroutine[Any, Any, ReplacedPayment] = self.workers[worker].payments.replace(
                observed.payment_id, attempt_request(request)
            )
            return work

        if other_tab:
            self._call(replacement(1 - worker), 1 - worker, "meanwhile")
        self._call(replacement(worker), worker, how)

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
