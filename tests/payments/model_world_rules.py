"""Rules of the model's world: time, faults, the shop, banks, channels; and of its operators."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from cashier.sandbox.engine import LIVE
from tests.payments.model_machine import ANY, FAULTS, PAYMENT_FAULTS, WORKERS, Faults, Machine
from tests.payments.model_workers import KEYS, Worker

# A payment token can be used for seven days after the payer's deadline. The model's payers query in
# time; test_token_refusals has the others.
MAX_HOURS = 120
CHANGES: list[dict[str, Any]] = [
    {"status": "CLOSED"},
    {"status": "MAINTENANCE"},
    {"status": "OPEN"},
    {"fee_bps": 0},
    {"fee_bps": 137},
    {"step": 1},
    {"step": 100},
]


class WorldRules(Machine):
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
    def the_weather_turns(self, faults: Faults) -> None:
        self.calls_fail(faults)

    @rule(service=st.sampled_from(["risk", "engine", "engine", "acquirer"]))
    def refuses_the_connection(self, service: str) -> None:
        self.upstreams.refusing.add(service)

    @rule()
    def the_weather_clears(self) -> None:
        self._clear()

    @precondition(lambda self: self.observations.payments)
    @rule(which=ANY)
    def the_bank_finds_money(self, which: int) -> None:
        """After it reported a failure; also after a cancellation or an expiry."""
        self.world.catch_up()
        failed = [
            payment_id
            for payment_id in self.observations.payments
            if (attempt := self.world.engine.attempt(payment_id)) is not None and attempt.status not in LIVE
        ]
        if failed and self.world.engine.correct(payment_id := self._pick(failed, which)).status == 200:
            self.observations.note_correction(payment_id)

    @rule(which=st.integers(0, 200), change=st.sampled_from(CHANGES))
    def a_channel_changes(self, which: int, change: dict[str, Any]) -> None:
        channels = self.world.population.all_channels
        channel = channels[which % len(channels)]
        self.observations.counts["channel changed"] += 1
        terms = [term | {"fee_bps": change["fee_bps"]} for term in channel.get("terms", ()) if "fee_bps" in change]
        self.world.population.change_channel(channel["channel_id"], **(change | ({"terms": terms} if terms else {})))

    @rule(worker=WORKERS, policy=st.integers(0, 11))
    def a_worker_reloads(self, worker: int, policy: int) -> None:
        self.workers[worker].reload(policy)
        self.observations.counts["reload"] += 1

    @rule(worker=WORKERS, rotates=st.booleans())
    def a_worker_is_replaced(self, worker: int, rotates: bool) -> None:
        """A graceful stop: requests under way end.

        The successor may be a step ahead with its keys.
        """
        self._stop(self.workers[worker])
        rotation = self.workers[worker].rotation
        if rotates and rotation <= self.workers[1 - worker].rotation and rotation + 1 < len(KEYS):
            rotation += 1
            self.observations.counts["rotation"] += 1
        self.workers[worker] = Worker(self.upstreams, rotation)

    @precondition(lambda self: self.clients)
    @rule(worker=WORKERS, after_ms=st.integers(0, 60), turns=st.integers(0, 12))
    def a_worker_is_killed(self, worker: int, after_ms: int, turns: int) -> None:
        """Kill it at any await. Its replacement starts without state."""
        self.loop.advance(after_ms / 1000)
        self.loop.turn(turns)
        self.workers[worker].kill()
        self.workers[worker] = Worker(self.upstreams, self.workers[worker].rotation)

    @precondition(lambda self: self.workers and self.upstreams.store)
    @rule(what=st.sampled_from(["forget", "lose", "find"]))
    def the_store_fails(self, what: str) -> None:
        store = self.upstreams.store
        assert store is not None
        if what == "forget":
            store.forget()
        else:
            store.lost = what == "lose"
