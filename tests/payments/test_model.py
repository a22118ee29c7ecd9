"""The proof: random payers, tabs, retries, faults, crashes and clock jumps against two workers and the sandbox, audited at every step.

A few histories by default, always the same; hundreds of fresh ones with `--proof`.
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
from cashier.sandbox.risk import ANSWER
from cashier.sandbox.weather import CALLS, Next, possible_faults
from tests.payments.model_loop import SkippingLoop
from tests.payments.model_payer import ABROAD, CHINESE, ORDERS, Offer, Submit, Twist, question, submit
from tests.payments.model_told import REFUSALS, Book, Story, Told
from tests.payments.model_workers import Outside, Trace, Worker, owned

Thing = TypeVar("Thing")
# Each throw begins anew: within one, histories are much alike.
DICE = 8
SEEN: Counter[str] = Counter()

ANY = st.integers(0, 11)
METHODS = st.integers(1, 40)
WORKERS = st.integers(0, 1)
# Whoever asks waits for the answer, does something else meanwhile, or goes away after so many milliseconds.
WAITING = st.sampled_from(["waits", "meanwhile", "meanwhile", "leaves"])
Trouble = list[tuple[str, str, Any, int]]


def faults_of(*calls: tuple[str, str]) -> st.SearchStrategy[tuple[str, str, Any, int]]:
    """A fault for the next of these calls, or for the next three: as often as a look-up is tried again."""
    return st.sampled_from(
        [
            (source, call, fault, times)
            for source, call in calls
            for fault in possible_faults(source)
            for times in (1, 3)
        ]
    )


PAYING = [(source, call) for source in ("risk", "engine", "acquirer") for call in CALLS[source]]
FAULTS = faults_of(*[(source, call) for source, calls in CALLS.items() for call in calls])
SUBMIT_FAULTS = faults_of(("engine", "submit"))
PAYMENT_FAULTS = faults_of(*PAYING)
TROUBLE = st.one_of(
    st.just([]),
    SUBMIT_FAULTS.map(lambda fault: [fault]),
    st.lists(st.one_of(SUBMIT_FAULTS, PAYMENT_FAULTS), max_size=3),
)
RIGHT = st.sampled_from([True, True, False])
# None is to cancel.
WAITS_MS = st.sampled_from([0, None, None, 900, 30_000])
TWISTS = st.sampled_from([*Twist] + [Twist.HONEST] * 8)


class Paying(RuleBasedStateMachine):
    """Payers and their shop, in front of two workers."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SkippingLoop()
        self.loop.set_task_factory(owned)
        self.world = World(seed=7, clock=self.loop.day)
        self.told = Told(self.world, self.loop.time)
        self.clients: set[asyncio.Task[None]] = set()
        self.offers: list[Offer] = []
        self.submits: list[Submit] = []
        self.workers: list[Worker] = []
        self.keys = 0

    @initialize(
        winds=st.integers(0, 99),
        guarded=st.booleans(),
        cases=st.one_of(
            st.lists(st.sampled_from(CHINESE[1:]), min_size=1, max_size=3, unique=True).map(
                lambda others: [*others, CHINESE[0]]
            ),
            st.lists(st.sampled_from(ABROAD), min_size=1, max_size=3, unique=True),
            st.lists(st.sampled_from(ORDERS), min_size=2, max_size=4, unique=True),
        ),
    )
    def begins(self, winds: int, guarded: bool, cases: list[str]) -> None:
        self.weather = weather_named("calm", winds)
        self.outside = Outside(self.loop, self.world, self.weather, guarded, self.told.trouble)
        self.workers = [Worker(self.outside), Worker(self.outside)]
        self.questions = [question(case) for case in cases]
        for place in range(len(cases)):
            self.consults(place, 0)

    # What payers do

    @rule(order=ANY, worker=WORKERS)
    def consults(self, order: int, worker: int) -> None:
        asked = self.questions[order % len(self.questions)]
        task = self.workers[worker].begin(self.workers[worker].cashier.consult(asked), Trace(set()))
        try:
            self.offers.append(Offer(asked, self.loop.run_until_complete(task)))
        except ConsultError as error:
            self.told.refused(error, Trace(set()))

    @precondition(lambda self: self.offers)
    @rule(
        trouble=TROUBLE,
        offer=ANY,
        method=METHODS,
        key=st.integers(0, 5),
        means=st.integers(0, 8),
        twist=TWISTS,
        worker=WORKERS,
        how=WAITING,
    )
    def submits_new(
        self, trouble: Trouble, offer: int, method: int, key: int, means: int, twist: Twist, worker: int, how: str
    ) -> None:
        """Under a new key, or under one that was used before."""
        self.befalls(trouble)
        self.keys += 1
        asked = submit(
            self.offers[-1 - offer % len(self.offers)], method, f"k{key if key < 2 else self.keys + 10}", means, twist
        )
        if asked is not None:
            self._submits(asked, worker, how)

    @precondition(lambda self: self.offers)
    @rule(trouble=TROUBLE, offer=ANY, method=METHODS, means=st.integers(0, 8), worker=WORKERS)
    def submits_and_waits(self, trouble: Trouble, offer: int, method: int, means: int, worker: int) -> None:
        """As most payers do."""
        self.submits_new(trouble, offer, method, 5, means, Twist.HONEST, worker, "waits")

    @precondition(lambda self: self.submits)
    @rule(trouble=TROUBLE, which=ANY, worker=WORKERS, how=WAITING, other_tab=st.booleans())
    def submits_again(self, trouble: Trouble, which: int, worker: int, how: str, other_tab: bool) -> None:
        self.befalls(trouble)
        asked = self._one(self.submits, which)
        if other_tab:
            self._submits(asked, 1 - worker, "meanwhile")
        self._submits(asked, worker, how)

    @precondition(lambda self: self.told.stories)
    @rule(trouble=TROUBLE, which=ANY, token=ANY, right=RIGHT, worker=WORKERS, how=WAITING, other_tab=st.booleans())
    def answers(
        self, trouble: Trouble, which: int, token: int, right: bool, worker: int, how: str, other_tab: bool
    ) -> None:
        """The challenge, also where there is none any more; sometimes in two tabs at once."""
        self.befalls(trouble)
        story = self._story(which, PaymentStatus.CHALLENGE)
        value, given = ANSWER if right else "000000", (story.payment_id, self._one(story.tokens, token))
        if other_tab:
            self._asks(self.workers[1 - worker].payments.answer(*given, value), 1 - worker, "meanwhile")
        self._asks(self.workers[worker].payments.answer(*given, value), worker, how)

    @precondition(lambda self: self.told.stories)
    @rule(trouble=TROUBLE, which=ANY, token=ANY, wait_ms=WAITS_MS, worker=WORKERS, how=WAITING)
    def looks_or_cancels(
        self, trouble: Trouble, which: int, token: int, wait_ms: int | None, worker: int, how: str
    ) -> None:
        self.befalls(trouble)
        payments = self.workers[worker].payments
        story = self._story(which, PaymentStatus.ACTION_REQUIRED if wait_ms is None else None)
        given = (story.payment_id, self._one(story.tokens, token))
        began, refused = self.told.begins(), self.told.heard["TokenRefused"]
        self._asks(payments.cancel(*given) if wait_ms is None else payments.look(*given, wait_ms=wait_ms), worker, how)
        heard = how == "waits" and refused == self.told.heard["TokenRefused"]
        if wait_ms is None and heard and not self.told.silence_since(began):
            assert story.payment_id not in self.world.engine.live, f"{story.payment_id} was cancelled, and lives"

    @precondition(lambda self: self.told.stories)
    @rule(which=ANY, token=ANY, worker=WORKERS)
    def follows(self, which: int, token: int, worker: int) -> None:
        story = self._story(which)
        self._client(self._follows(story.payment_id, self._one(story.tokens, token), worker))

    @precondition(lambda self: self.world.engine.live)
    @rule(
        which=ANY,
        result=st.sampled_from(["SUCCEEDED", "SUCCEEDED", "FAILED"]),
        brings=st.sampled_from([None, None, -1, 1]),
    )
    def acts_elsewhere(self, which: int, result: Any, brings: int | None) -> None:
        """At a bank, in a wallet, at a counter: pays, declines, brings too little or too much."""
        payment_id = self._one(sorted(self.world.engine.live), which)
        attempt = self.world.engine.attempt(payment_id)
        assert attempt is not None
        paid = None if brings is None else max(0, attempt.carried.value + brings * 100)
        self.world.catch_up()
        self.world.engine.settle(payment_id, result, paid)

    @precondition(lambda self: self.submits)
    @rule(which=ANY)
    def pays_too_late(self, which: int) -> None:
        """What banks and counters take for a code that is over."""
        self.world.catch_up()
        self.world.engine.settle(self._one(self.submits, which).payment_id, "SUCCEEDED")

    # What the world does

    @precondition(lambda self: self.world.engine.live)
    @rule(which=ANY)
    def the_shop_closes_an_order(self, which: int) -> None:
        attempt = self.world.engine.attempt(self._one(sorted(self.world.engine.live), which))
        assert attempt is not None
        self.world.acquirer.close(attempt.submission.order_id)

    @rule(seconds=st.sampled_from([0.01, 0.1, 1, 3, 6, 31, 50, 290, 901]))
    def time_passes(self, seconds: float) -> None:
        self.loop.spend(seconds)

    @precondition(lambda self: self.told.stories)
    @rule(hours=st.sampled_from([1, 2, 5, 25]))
    def hours_pass(self, hours: int) -> None:
        self.loop.spend(3_600 * hours)

    @rule(faults=st.lists(st.one_of(FAULTS, PAYMENT_FAULTS), min_size=1, max_size=3))
    def befalls(self, faults: Trouble) -> None:
        """Something goes wrong with the next call of this sort."""
        for source, call, fault, times in faults:
            forecast = self.weather.forecast(source)
            self.weather.change(source, replace(forecast, next=(*forecast.next, *[Next(fault, call)] * times)))

    @rule(service=st.sampled_from(["risk", "engine", "engine", "acquirer"]))
    def refuses_the_connection(self, service: str) -> None:
        self.outside.refusing.add(service)

    @rule()
    def the_weather_clears(self) -> None:
        self._clear()

    @precondition(lambda self: self.clients)
    @rule(worker=WORKERS, after_ms=st.integers(0, 60), turns=st.integers(0, 12))
    def a_worker_is_killed(self, worker: int, after_ms: int, turns: int) -> None:
        """In the middle of what it does. Another takes its place, and knows nothing."""
        self.loop.spend(after_ms / 1000)
        self.loop.turn(turns)
        self.workers[worker].kill()
        self.workers[worker] = Worker(self.outside)

    @precondition(lambda self: self.workers and self.outside.store)
    @rule(what=st.sampled_from(["forget", "lose", "find"]))
    def the_store_fails(self, what: str) -> None:
        store = self.outside.store
        assert store is not None
        if what == "forget":
            store.forget()
        else:
            store.lost = what == "lose"

    # What must be true

    @invariant()
    def the_ledger_is_right(self) -> None:
        self.world.catch_up()
        wrong = [*self.world.audit(), *self.told.against_the_ledger()]
        assert not wrong, wrong

    @invariant()
    def nobody_was_told_anything_wrong(self) -> None:
        assert not self.told.wrong, self.told.wrong
        # Who goes away hears no refusal, so it is told there. Anything else is a bug.
        loud = [one for one in self.loop.told if not isinstance(one.get("exception"), REFUSALS)]
        assert not loud, loud

    def teardown(self) -> None:
        try:
            if self.workers:
                self._end()
        finally:
            SEEN.update(self.told.heard)
            for worker in self.workers:
                worker.kill()
            for client in self.clients:
                client.cancel()
            self.loop.turn(50)
            self.loop.close()

    def _end(self) -> None:
        """The weather clears, time passes, and everybody looks, or asks again, until everything is over."""
        self._clear()
        self.loop.spend(0.5)
        if self.clients:
            self.loop.run_until_complete(asyncio.wait(self.clients))
        for asked in tuple(self.submits):
            if asked.payment_id not in self.told.stories:
                self._submits(asked, 0, "waits")
            attempt = self.world.engine.attempt(asked.payment_id)
            ours = attempt is not None and attempt.submission.fingerprint == asked.fingerprint
            assert not ours or asked.payment_id in self.told.stories, (
                f"the engine has {asked.payment_id}, and its client is told of none"
            )
        for place, story in enumerate(tuple(self.told.stories.values())):
            self._ends(story, place)
        self._every_order_is_over()
        self.nobody_was_told_anything_wrong()
        self.the_ledger_is_right()
        self._nothing_is_left()

    def _ends(self, story: Story, place: int) -> None:
        """By looking, and nothing else. What the engine itself never finishes is finished there, or cancelled here."""
        for look in range(24):
            self._asks(self.workers[0].payments.look(story.payment_id, story.tokens[-1]), 0, "waits")
            if story.told in FINAL:
                return
            self.loop.spend(min(60.0 * 2**look, 86_400))
            if look == 12 and place % 2:
                self.world.engine.settle(story.payment_id, "FAILED")
            elif look == 12:
                self._asks(self.workers[0].payments.cancel(story.payment_id, story.tokens[-1]), 0, "waits")
        raise AssertionError(f"{story.payment_id} is {story.told} after 24 looks and more than ten days")

    def _every_order_is_over(self) -> None:
        book = Book(self.world)
        for asked in self.questions:
            paid = book.paid.get(asked.order_id, [])
            for submitted in self.submits:
                if submitted.request.order_id == asked.order_id and submitted.payment_id not in paid:
                    assert book.kept[submitted.payment_id] == 0, submitted

    def _nothing_is_left(self) -> None:
        for worker in self.workers:
            worker.close()
            assert worker.left == []
        assert self.loop.timers == 0

    def _clear(self) -> None:
        self.weather.restore()
        self.outside.refusing.clear()
        if self.outside.store is not None:
            self.outside.store.lost = False

    # How clients ask

    def _submits(self, asked: Submit, worker: int, how: str) -> None:
        self.submits.append(asked)
        self.told.bodies.setdefault(asked.payment_id, set()).add(asked.fingerprint)
        if asked.request.device is not None:
            self.told.with_device.add(asked.payment_id)
        self._asks(self.workers[worker].payments.submit(asked.request, asked.key), worker, how, asked)

    def _asks(self, work: Coroutine[Any, Any, Payment], worker: int, how: str, asked: Submit | None = None) -> None:
        client = self._client(self._hears(work, self.workers[worker], asked, 0.02 if how == "leaves" else None))
        if how != "meanwhile":
            self.loop.run_until_complete(client)

    def _client(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        client = self.loop.create_task(work, context=Context())
        self.clients.add(client)
        client.add_done_callback(self.clients.discard)
        return client

    async def _hears(
        self, work: Coroutine[Any, Any, Payment], worker: Worker, asked: Submit | None, patience_s: float | None
    ) -> None:
        """A client knows nothing of what becomes of a connection that it leaves, or that is cut."""
        began, trace = self.told.begins(), Trace(set())
        task = worker.begin(work, trace)
        await asyncio.wait([task], timeout=patience_s)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if task.cancelled():
            self.told.heard["cut off"] += 1
            return
        error = task.exception()
        if error is None:
            self.told.payment(began, task.result(), asked)
            return
        self.told.refused(error, trace)
        if isinstance(error, ConsultChanged) and asked is not None:
            question = next(one for one in self.questions if one.order_id == asked.request.order_id)
            self.offers.append(Offer(question, error.consultation))

    async def _follows(self, payment_id: str, payment_token: str, worker: int) -> None:
        payments = self.workers[worker].payments

        async def followed() -> None:
            began = self.told.begins()
            async for payment in payments.follow(payment_id, payment_token):
                self.told.payment(began, payment)
                began = self.told.begins()

        task = self.workers[worker].begin(followed(), Trace(set()))
        await asyncio.wait([task])
        if not task.cancelled() and isinstance(error := task.exception(), REFUSALS):
            self.told.refused(error, Trace(set()))
        elif not task.cancelled():
            task.result()

    def _story(self, which: int, told: PaymentStatus | None = None) -> Story:
        """Of those that were told so last, where there are any."""
        stories = list(self.told.stories.values())
        return self._one([story for story in stories if story.told is told] or stories, which)

    @staticmethod
    def _one(these: Sequence[Thing], which: int) -> Thing:
        """Mostly the newest, as in life."""
        return these[-1 - which % len(these)]


@pytest.mark.hypothesis
def test_no_history_breaks_a_promise(pytestconfig: pytest.Config) -> None:
    times: int = pytestconfig.getoption("proof")
    histories = settings(
        max_examples=25 * times or 4,
        stateful_step_count=40,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    for dice in range(DICE):
        run_state_machine_as_test(Paying if times else seed(dice)(Paying), settings=histories)
    # A proof in which nothing happens proves nothing.
    assert {status for status in PaymentStatus if SEEN[status]} == set(PaymentStatus), SEEN
