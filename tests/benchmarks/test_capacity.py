"""The model of a fleet (`benchmarks/capacity`): what must hold of it whatever the prices and the traffic are. Measures nothing."""

from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from benchmarks.capacity.batching import SimulatedBatch, keys_per_call
from benchmarks.capacity.cost_model import PARTS, cost_us, fit_prices
from benchmarks.capacity.fleet import fleet_need, simulate_worker
from benchmarks.capacity.scenarios import AS_SHIPPED, NOTHING, ON
from benchmarks.capacity.shared_cache import S_NS, SharedCacheModel
from benchmarks.capacity.simulated_worker import Mechanisms, SimulatedCache
from benchmarks.capacity.traffic import Traffic, TrafficStream, Zipf
from cashier.fanout.batch import BatchPolicy
from cashier.fanout.s3fifo import S3FifoStore
from cashier.fanout.ttl import CacheSettings

PRICES = {"base": 200.0, "wait": 50.0, "call": 40.0, "get": 80.0, "put": 80.0, "key": 12.0}
TOOK_NS = 5_000_000
BRIEFLY = CacheSettings(10, 60, 600, 5)


def served(mechanisms: Mechanisms, workers: int, *, per_worker_s: float = 100.0, consultations: int = 4_000) -> float:
    counts = simulate_worker(Traffic(), mechanisms, per_worker_s * workers, workers, consultations, 300.0).counts.values()
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
def test_every_look_up_is_a_hit_or_a_miss_and_every_miss_is_paid_for_or_joined(
    mechanisms: Mechanisms, workers: int
) -> None:
    found = simulate_worker(Traffic(), mechanisms, 50.0 * workers, workers, 500, 300.0)
    for counts in found.counts.values():
        assert counts.hits + counts.stale + counts.misses == counts.asked == found.consultations
        # What had to be fetched was found in the shared cache or asked for; what was served while it was fetched anew was both or either.
        assert counts.misses - counts.joined <= counts.calls + counts.found
        assert counts.puts in (0, counts.calls)
        assert counts.found <= counts.gets


def test_without_any_mechanism_a_consultation_makes_eight_calls() -> None:
    found = fleet_need(Traffic(), NOTHING, PRICES, 10_000, 500)
    assert found.calls == pytest.approx(8 * found.per_s)
    hedged = fleet_need(Traffic(extra_share=0.05), replace(NOTHING, hedge=True), PRICES, 10_000, 500)
    assert hedged.calls == pytest.approx(8 * 1.05 * found.per_s)
    assert found.cpu_us == pytest.approx(200 + 50 + 8 * 40)
    assert found.workers == math.ceil(found.cores)


@pytest.mark.proof
def test_more_workers_never_hit_more_often() -> None:
    rates = [served(AS_SHIPPED, workers) for workers in (1, 3, 10, 40)]
    for fewer, more in itertools.pairwise(rates):
        assert more <= fewer + 0.02
    assert rates[-1] < rates[0] - 0.1


def test_a_worker_that_owns_its_users_hits_more_often() -> None:
    assert served(replace(AS_SHIPPED, sticky=True), 40) > served(AS_SHIPPED, 40) + 0.1


@pytest.mark.proof
def test_a_sample_hits_as_often_as_the_whole() -> None:
    whole, sample = (
        served(replace(ON, sticky=True, entries=500), 20, per_worker_s=20, consultations=n) for n in (18_000, 3_000)
    )
    assert sample == pytest.approx(whole, abs=0.04)


@pytest.mark.proof
@settings(max_examples=6)  # each is a fleet of its own
@given(st.floats(80, 2_000), st.floats(5, 200), st.floats(0, 300), st.sampled_from([300.0, 5_000.0, 100_000.0]))
def test_the_number_of_workers_settles(base_us: float, call_us: float, shared_us: float, per_s: float) -> None:
    prices = {**PRICES, "base": base_us, "call": call_us, "get": shared_us, "put": shared_us}
    found = fleet_need(Traffic(), ON, prices, per_s, 2_000)
    assert found.settled
    assert found.cores == pytest.approx(per_s * cost_us(prices, found.work) / 1e6 / 0.6)
    assert abs(found.workers - found.cores) <= 1


@given(st.lists(st.floats(5, 2_000), min_size=len(PARTS), max_size=len(PARTS)), st.integers(0, 99))
def test_prices_are_found_again_from_what_they_make(values: list[float], seed: int) -> None:
    random = Random(seed)
    prices = dict(zip(PARTS, values, strict=True))
    works = [{part: 1.0 if part == "base" else random.uniform(0, 8) for part in PARTS} for _ in range(12)]
    assert fit_prices([(work, cost_us(prices, work)) for work in works]) == pytest.approx(prices, rel=1e-3, abs=1e-3)


def test_no_price_is_below_nothing_and_what_cannot_be_told_apart_is_refused() -> None:
    works = [{"base": 1.0, "call": n, "wait": n % 3, "get": n % 2, "put": n % 5, "key": n % 7} for n in range(20)]
    assert fit_prices([(work, 500 - 10 * work["call"]) for work in works])["call"] == 0
    with pytest.raises(ValueError, match="apart"):
        fit_prices([({"base": 1.0, "call": n, "wait": 2.0 * n}, 300.0 + n) for n in range(9)])


def test_keys_share_calls_only_where_there_is_load() -> None:
    lonely, busy, crowded = (keys_per_call(per_s, 1.0, 200.0, 5.0) for per_s in (5, 1_000, 4_500))
    assert lonely == pytest.approx(1.0, abs=0.02)
    assert lonely < busy < crowded <= BatchPolicy().max
    assert keys_per_call(1_000, 0.1, 200.0, 5.0) < busy


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 120)), max_size=60))
def test_a_call_holds_no_more_than_its_most_and_no_key_waits_too_long(turns: list[tuple[float, int]]) -> None:
    source, now_s, keys = SimulatedBatch(BatchPolicy(), 0.005), 0.0, 0
    for gap_s, came in turns:
        now_s, keys = now_s + gap_s, keys + came
        source.until(now_s)
        source.gather(came, now_s)
    source.until(now_s + 0.002)
    assert source.keys == keys
    assert source.keys <= source.calls * BatchPolicy().max


def test_a_stale_answer_serves_while_one_call_fetches_a_new_one() -> None:
    cache = cached()
    for at_s in (0, 1, 20, 20.001, 20.002, 21):
        cache.ask("u", round(at_s * S_NS))
    counts = cache.counts
    assert (counts.misses, counts.calls) == (1, 2)
    assert counts.hits + counts.stale == 5


def test_whoever_asks_meanwhile_joins_and_without_single_flight_calls_too() -> None:
    joining, apart = cached(), cached(single_flight=False)
    for cache in (joining, apart):
        for at_ns in (0, 1_000_000, 2_000_000, TOOK_NS + 1):
            cache.ask("u", at_ns)
    assert (joining.counts.calls, joining.counts.joined, joining.counts.hits) == (1, 2, 1)
    assert (apart.counts.calls, apart.counts.joined) == (3, 0)


def test_what_another_worker_has_fetched_is_not_called_for() -> None:
    sight = SharedCacheModel(BRIEFLY, 1_000, Random(1))
    cache = cached(sight)
    sight.elsewhere("u", 0)
    cache.ask("u", 2 * S_NS)
    assert (cache.counts.calls, cache.counts.gets, cache.counts.found) == (0, 1, 1)


def test_a_shared_cache_without_room_has_forgotten() -> None:
    sight = SharedCacheModel(BRIEFLY, 30, Random(1))
    sight.put("u", 0)
    assert sight.born_ns("u", 29 * S_NS) == 0
    assert sight.born_ns("u", 30 * S_NS) is None


def test_what_everybody_asks_for_is_kept_fresh_by_the_others() -> None:
    sight = SharedCacheModel(BRIEFLY, 1_000, Random(1), lambda _: 50.0)
    for at_s in range(0, 500, 7):
        born_ns = sight.born_ns("market", at_s * S_NS)
        assert born_ns is not None
        assert at_s * S_NS - born_ns <= 11 * S_NS


@given(st.integers(1, 2_000), st.floats(0.2, 0.99), st.floats(0.5, 50))
def test_shares_add_up_and_nobody_is_beyond_the_last(count: int, exponent: float, head: float) -> None:
    ranks, random = Zipf(count, exponent, head), Random(1)
    assert sum(ranks.share(rank) for rank in range(count)) == pytest.approx(1)
    assert all(0 <= ranks.draw(random) < count for _ in range(50))


@pytest.mark.parametrize("sticky", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 30])
def test_a_worker_gets_its_share_in_order_of_time(workers: int, sticky: bool) -> None:
    stream = TrafficStream(Traffic(), 40.0 * workers, workers, sticky=sticky, random=Random(5))
    asked = list(stream.until(300))
    assert [each.at_s for each in asked] == sorted(each.at_s for each in asked)
    settled = [each for each in asked if each.at_s > 150 and each.here]
    assert len(settled) / 150 == pytest.approx(40, rel=0.1)


def test_a_worker_that_owns_its_users_has_no_others() -> None:
    users, workers = 4_000, 20
    stream = TrafficStream(Traffic(users_each=5), users / 5, workers, sticky=True, random=Random(5))
    found = {asked.user for asked in stream.until(100)}
    assert max(found) < users / workers
    assert len(found) > 0.8 * users / workers
