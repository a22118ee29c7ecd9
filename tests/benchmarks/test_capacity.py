"""Invariants of the capacity model (`benchmarks/capacity`) for any prices and traffic."""

from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from benchmarks.capacity.caches import S_NS, Mechanisms, SharedCacheModel, SimulatedCache
from benchmarks.capacity.fleet import (
    PARTS,
    SimulatedBatch,
    cost_us,
    fit_prices,
    fleet_need,
    keys_per_call,
    simulate_worker,
)
from benchmarks.capacity.traffic import Traffic, TrafficStream, Zipf
from cashier.fanout.batch import BatchPolicy
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.fanout.s3fifo import S3FifoStore

ON, AS_SHIPPED = Mechanisms(), Mechanisms(shared=False, batch=False)
NOTHING = Mechanisms({}, shared=False, batch=False, hedge=False)
PRICES = {"base": 200.0, "wait": 50.0, "call": 40.0, "get": 80.0, "put": 80.0, "key": 12.0}
TOOK_NS = 5_000_000
BRIEFLY = CacheSettings(10, 60, 600, 5)


def served(mechanisms: Mechanisms, workers: int, *, per_worker_s: float = 100.0, consultations: int = 4_000) -> float:
    counts = simulate_worker(
        Traffic(), mechanisms, per_worker_s * workers, workers, consultations, 300.0
    ).counts.values()
    cached = [each for each in counts if each.hits or each.stale]
    return sum(each.hits + each.stale for each in cached) / sum(each.asked for each in cached)


def cached(sight: SharedCacheModel | None = None, *, single_flight: bool = True) -> SimulatedCache:
    return SimulatedCache(BRIEFLY, S3FifoStore(100), sight, TOOK_NS, Random(1), single_flight=single_flight)


@given(
    st.builds(
        lambda shared, single_flight, sticky, entries: replace(
            ON, shared=shared, single_flight=single_flight, sticky=sticky, entries=entries
        ),
        st.booleans(), st.booleans(), st.booleans(), st.integers(1, 5_000),
    ),
    st.integers(1, 50),
)  # fmt: skip
def test_every_look_up_is_a_hit_or_a_miss_and_every_miss_fetches_or_joins(mechanisms: Mechanisms, workers: int) -> None:
    worker = simulate_worker(Traffic(), mechanisms, 50.0 * workers, workers, 500, 300.0)
    for counts in worker.counts.values():
        assert counts.hits + counts.stale + counts.misses == counts.asked == worker.consultations
        # A fetch reads the shared cache or calls the source. A refresh of a stale answer may do
        # both.
        assert counts.misses - counts.joined <= counts.calls + counts.found
        assert counts.puts in (0, counts.calls)
        assert counts.found <= counts.gets


def test_without_mechanisms_a_consultation_makes_eight_calls() -> None:
    fleet = fleet_need(Traffic(), NOTHING, PRICES, 10_000, 500)
    assert fleet.calls_each == pytest.approx(8)
    hedged = fleet_need(Traffic(extra_share=0.05), replace(NOTHING, hedge=True), PRICES, 10_000, 500)
    assert hedged.calls_each == pytest.approx(8 * 1.05)
    assert fleet.cpu_us == pytest.approx(200 + 50 + 8 * 40)
    assert fleet.workers == math.ceil(fleet.cores)


@pytest.mark.proof
def test_more_workers_never_hit_more_often() -> None:
    rates = [served(AS_SHIPPED, workers) for workers in (1, 3, 10, 40)]
    for fewer, more in itertools.pairwise(rates):
        assert more <= fewer + 0.02
    assert rates[-1] < rates[0] - 0.1


def test_a_worker_that_owns_its_users_hits_more_often() -> None:
    assert served(replace(AS_SHIPPED, sticky=True), 40) > served(AS_SHIPPED, 40) + 0.1


@pytest.mark.proof
def test_a_sample_has_the_hit_rate_of_the_whole() -> None:
    whole, sample = (
        served(replace(ON, sticky=True, entries=500), 20, per_worker_s=20, consultations=n) for n in (18_000, 3_000)
    )
    assert sample == pytest.approx(whole, abs=0.04)


@pytest.mark.proof
@settings(max_examples=6)  # each is a fleet of its own
@given(st.floats(80, 2_000), st.floats(5, 200), st.floats(0, 300), st.sampled_from([300.0, 5_000.0, 100_000.0]))
def test_the_number_of_workers_settles(base_us: float, call_us: float, shared_us: float, per_s: float) -> None:
    prices = {**PRICES, "base": base_us, "call": call_us, "get": shared_us, "put": shared_us}
    fleet = fleet_need(Traffic(), ON, prices, per_s, 2_000)
    assert fleet.settled
    assert fleet.cores == pytest.approx(per_s * cost_us(prices, fleet.work) / 1e6 / 0.6)
    assert abs(fleet.workers - fleet.cores) <= 1


@given(st.lists(st.floats(5, 2_000), min_size=len(PARTS), max_size=len(PARTS)), st.integers(0, 99))
def test_the_fit_recovers_prices_from_exact_costs(values: list[float], seed: int) -> None:
    random = Random(seed)
    prices = dict(zip(PARTS, values, strict=True))
    works = [{part: 1.0 if part == "base" else random.uniform(0, 8) for part in PARTS} for _ in range(12)]
    assert fit_prices([(work, cost_us(prices, work)) for work in works]) == pytest.approx(prices, rel=1e-3, abs=1e-3)


def test_no_fitted_price_is_negative_and_inseparable_parts_are_refused() -> None:
    works = [{"base": 1.0, "call": n, "wait": n % 3, "get": n % 2, "put": n % 5, "key": n % 7} for n in range(20)]
    assert fit_prices([(work, 500 - 10 * work["call"]) for work in works])["call"] == 0
    with pytest.raises(ValueError, match="separates"):
        fit_prices([({"base": 1.0, "call": n, "wait": 2.0 * n}, 300.0 + n) for n in range(9)])


def test_keys_share_calls_only_under_load() -> None:
    idle, busy, full = (keys_per_call(per_s, 1.0, 200.0) for per_s in (5, 1_000, 4_500))
    assert idle == pytest.approx(1.0, abs=0.02)
    assert idle < busy < full <= BatchPolicy().max
    assert keys_per_call(1_000, 0.1, 200.0) < busy


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 120)), max_size=60))
def test_a_batch_stays_within_its_maximum_and_no_key_waits_too_long(turns: list[tuple[float, int]]) -> None:
    source, now_s, keys = SimulatedBatch(BatchPolicy()), 0.0, 0
    for gap_s, added in turns:
        now_s, keys = now_s + gap_s, keys + added
        source.until(now_s)
        source.gather(added, now_s)
    source.until(now_s + BatchPolicy().wait_ms / 1000)
    assert source.keys == keys
    assert source.keys <= source.calls * BatchPolicy().max


def test_a_stale_answer_serves_while_one_call_fetches_a_new_one() -> None:
    cache = cached()
    for at_s in (0, 1, 20, 20.001, 20.002, 21):
        cache.ask("u", round(at_s * S_NS))
    counts = cache.counts
    assert (counts.misses, counts.calls) == (1, 2)
    assert counts.hits + counts.stale == 5


def test_concurrent_misses_join_one_call_but_only_with_single_flight() -> None:
    joining, apart = cached(), cached(single_flight=False)
    for cache in (joining, apart):
        for at_ns in (0, 1_000_000, 2_000_000, TOOK_NS + 1):
            cache.ask("u", at_ns)
    assert (joining.counts.calls, joining.counts.joined, joining.counts.hits) == (1, 2, 1)
    assert (apart.counts.calls, apart.counts.joined) == (3, 0)


def test_an_answer_fetched_by_another_worker_saves_the_call() -> None:
    sight = SharedCacheModel(BRIEFLY, 1_000, Random(1))
    cache = cached(sight)
    sight.elsewhere("u", 0)
    cache.ask("u", 2 * S_NS)
    assert (cache.counts.calls, cache.counts.gets, cache.counts.found) == (0, 1, 1)


def test_a_full_shared_cache_drops_old_answers() -> None:
    sight = SharedCacheModel(BRIEFLY, 30, Random(1))
    sight.put("u", 0)
    assert sight.born_ns("u", 29 * S_NS) == 0
    assert sight.born_ns("u", 30 * S_NS) is None


def test_other_workers_keep_a_shared_answer_fresh() -> None:
    sight = SharedCacheModel(BRIEFLY, 1_000, Random(1), lambda _: 50.0)
    for at_s in range(0, 500, 7):
        born_ns = sight.born_ns("market", at_s * S_NS)
        assert born_ns is not None
        assert at_s * S_NS - born_ns <= 11 * S_NS


@given(st.integers(1, 2_000), st.floats(0.2, 0.99), st.floats(0.5, 50))
def test_shares_add_up_and_no_draw_exceeds_the_last_rank(count: int, exponent: float, head: float) -> None:
    ranks, random = Zipf(count, exponent, head), Random(1)
    assert sum(ranks.share(rank) for rank in range(count)) == pytest.approx(1)
    assert all(0 <= ranks.draw(random) < count for _ in range(50))


@pytest.mark.parametrize("sticky", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 30])
def test_a_worker_gets_its_share_in_order_of_time(workers: int, sticky: bool) -> None:
    stream = TrafficStream(Traffic(), 40.0 * workers, workers, sticky=sticky, random=Random(5))
    consultations = list(stream.until(300))
    assert [each.at_s for each in consultations] == sorted(each.at_s for each in consultations)
    settled = [each for each in consultations if each.at_s > 150 and each.here]
    assert len(settled) / 150 == pytest.approx(40, rel=0.1)


def test_with_sticky_routing_a_worker_has_only_its_own_users() -> None:
    users, workers = 4_000, 20
    stream = TrafficStream(Traffic(users_each=5), users / 5, workers, sticky=True, random=Random(5))
    drawn = {consultation.user for consultation in stream.until(100)}
    assert max(drawn) < users / workers
    assert len(drawn) > 0.8 * users / workers
