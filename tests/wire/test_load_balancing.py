"""Load balancing across addresses: decisions one by one, then properties in virtual time."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.wire.load_balancing import (
    DECAY_S,
    ERROR_FACTOR,
    FIRST_SHARE,
    MAX_BACK_OFF_S,
    WARM_UP_S,
    BackOff,
    LatencyEstimate,
    LoadBalancer,
)


class Host:
    def __init__(self, load: int = 0, took_s: float = 0.0, weight: float = 1.0, priority: int = 0) -> None:
        self.load = load
        self.back_off = BackOff()
        self.latency = LatencyEstimate()
        self.weight = weight
        self.priority = priority
        if took_s:
            self.latency.record(took_s, 0.0)


def balancer_of(*hosts: Host) -> LoadBalancer[Host]:
    return LoadBalancer(hosts, Random(1))


def test_the_lower_load_of_two_wins() -> None:
    hosts = [Host(3), Host(1)]
    balancer = balancer_of(*hosts)
    assert {balancer.pick(0.0) for _ in range(6)} == {hosts[1]}


def test_the_highest_load_is_never_used_and_ties_rotate() -> None:
    hosts = [Host(), Host(), Host(1)]
    balancer = balancer_of(*hosts)
    assert {balancer.pick(0.0) for _ in range(12)} == set(hosts[:2])
    equal = [Host() for _ in range(5)]
    balancer = balancer_of(*equal)
    assert [balancer.pick(0.0) for _ in range(10)] == equal * 2


def test_a_lower_latency_outweighs_some_calls_in_flight() -> None:
    far, near = Host(0, 0.020), Host(1, 0.005)
    balancer = balancer_of(far, near)
    assert {balancer.pick(0.0) for _ in range(6)} == {near}
    near.load = 7
    assert {balancer.pick(0.0) for _ in range(6)} == {far}


def test_a_small_difference_is_noise() -> None:
    hosts = [Host(0, 0.0050), Host(0, 0.0055)]
    balancer = balancer_of(*hosts)
    assert Counter(balancer.pick(0.0) for _ in range(10)) == {hosts[0]: 5, hosts[1]: 5}


def test_an_idle_slow_address_is_tried_again_by_one_call_at_a_time() -> None:
    slow, fast = Host(0, 0.200), Host(1, 0.005)
    balancer = balancer_of(slow, fast)
    assert {balancer.pick(DECAY_S) for _ in range(6)} == {fast}
    later_s = 4 * DECAY_S
    assert balancer.pick(later_s) is slow
    slow.load = 1
    assert {balancer.pick(later_s) for _ in range(6)} == {fast}


def test_a_failed_address_is_avoided_for_a_while_and_then_used_again() -> None:
    hosts = [Host(), Host(5)]
    balancer = balancer_of(*hosts)
    hosts[0].back_off.record_failure(10.0)
    assert balancer.pick(10.05) is hosts[1]
    assert balancer.pick(10.1) is hosts[0]


def test_repeated_failures_lengthen_the_back_off_up_to_a_bound() -> None:
    back_off = BackOff()
    now_s, pauses = 0.0, []
    for _ in range(20):
        back_off.record_failure(now_s)
        pauses.append(back_off.until_s - now_s)
        now_s = back_off.until_s
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[MAX_BACK_OFF_S] * 14])


def test_connects_that_fail_together_count_as_one_failure() -> None:
    together, single = BackOff(), BackOff()
    for _ in range(8):
        together.record_failure(1.0)
    single.record_failure(1.0)
    assert together.until_s == single.until_s


def test_a_successful_connect_ends_the_back_off() -> None:
    hosts = [Host(), Host(5)]
    balancer = balancer_of(*hosts)
    hosts[0].back_off.record_failure(10.0)
    hosts[0].back_off.record_success()
    assert balancer.pick(10.0) is hosts[0]


def test_the_only_one_that_is_not_in_back_off_is_found_among_many() -> None:
    hosts = [Host() for _ in range(9)]
    for host in hosts[1:]:
        host.back_off.record_failure(10.0)
    balancer = balancer_of(*hosts)
    assert {balancer.pick(10.05) for _ in range(20)} == {hosts[0]}


def test_if_all_are_in_back_off_the_one_that_ends_first_is_used() -> None:
    hosts = [Host(), Host()]
    balancer = balancer_of(*hosts)
    hosts[0].back_off.record_failure(10.0)
    hosts[1].back_off.record_failure(10.05)
    assert {balancer.pick(10.06) for _ in range(4)} == {hosts[0]}


def test_an_excluded_host_is_left_out_even_if_idle() -> None:
    hosts = [Host(), Host(5), Host(6)]
    balancer = balancer_of(*hosts)
    assert {balancer.pick(0.0, avoid=0b001) for _ in range(6)} <= {hosts[1], hosts[2]}
    assert {balancer.pick(0.0, avoid=0b011) for _ in range(6)} == {hosts[2]}


def test_if_all_hosts_are_excluded_the_best_is_used_anyway() -> None:
    hosts = [Host(2), Host()]
    balancer = balancer_of(*hosts)
    assert {balancer.pick(0.0, avoid=0b11) for _ in range(4)} == {hosts[1]}


def test_an_excluded_host_is_not_used_although_the_others_are_in_back_off() -> None:
    hosts = [Host(), Host()]
    hosts[1].back_off.record_failure(10.0)
    assert balancer_of(*hosts).pick(10.05, avoid=0b01) is hosts[1]


def test_a_standby_is_used_only_if_no_other_can_be() -> None:
    hosts = [Host(priority=20), Host(9, priority=10), Host(priority=10)]
    balancer = balancer_of(*hosts)
    assert {balancer.pick(0.0) for _ in range(9)} <= {hosts[1], hosts[2]}
    assert {balancer.pick(0.0, unproven=0b010) for _ in range(9)} == {hosts[2]}
    assert {balancer.pick(0.0, avoid=0b100, unproven=0b010) for _ in range(9)} == {hosts[0]}
    assert {balancer.pick(0.0, avoid=0b001, unproven=0b110) for _ in range(9)} <= {hosts[1], hosts[2]}


def test_a_weight_next_to_nothing_is_harmless() -> None:
    hosts = [Host(1, 0.005, weight=5e-324), Host(1, 0.005, weight=1e9)]
    balancer = balancer_of(*hosts)
    assert Counter(balancer.pick(0.0) for _ in range(32))[hosts[1]] > 16


@given(st.lists(st.floats(0.01, 1000), min_size=2, max_size=12))
def test_every_address_gets_the_share_of_its_weight_and_at_least_one_turn(weights: list[float]) -> None:
    hosts = [Host(weight=weight) for weight in weights]
    balancer = balancer_of(*hosts)
    turns = Counter(balancer._tiers[0])
    rounds = balancer._tiers[0]
    for index, weight in enumerate(weights):
        assert turns[index] >= 1
        assert turns[index] <= 2 + len(rounds) * weight / sum(weights)


def test_an_error_counts_as_slower_than_the_slowest() -> None:
    hosts = [Host(0, 0.001), Host(1, 0.050)]
    balancer = balancer_of(*hosts)
    balancer.record(hosts[0], 0.0002, 0.0, failed=True)
    assert hosts[0].latency.at(0.0) == pytest.approx(ERROR_FACTOR * 0.050 * 2)
    for _ in range(20):
        for host in hosts:
            balancer.record(host, 0.0002, 0.0, failed=True)
    assert hosts[0].latency.at(0.0) == pytest.approx(ERROR_FACTOR * 0.050 * 2)  # no contest of errors


def test_a_stall_of_our_own_is_forgotten_after_some_answers() -> None:
    """Not only after ten seconds: it made all addresses look slow, and hid which one is."""
    estimate = LatencyEstimate()
    estimate.record(0.500, 0.0)
    for number in range(80):
        estimate.record(0.004, number * 0.002)
    assert estimate.at(0.160) < 0.008


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(1e-6, 10)), min_size=1, max_size=30))
def test_an_estimate_is_never_below_the_last_call_nor_above_the_slowest(calls: list[tuple[float, float]]) -> None:
    estimate = LatencyEstimate()
    now_s = 0.0
    for passed_s, took_s in calls:
        now_s += passed_s
        estimate.record(took_s, now_s)
        # Two calls of nearly equal duration may add up to a little more than either.
        assert took_s * (1 - 1e-9) <= estimate.taken_s <= 2 * max(took_s for _, took_s in calls)
    assert estimate.at(now_s + 100) < estimate.taken_s


# Properties in virtual time: calls arrive at random, hosts answer after their latency.

Latency = Callable[[Random], float]


class SimulatedHost(Host):
    """`latency_of`: how long a call takes. `fails`: how calls end."""

    def __init__(self, latency_of: Latency, *, fails: bool = False, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.latency_of = latency_of
        self.fails = fails
        self.calls: list[float] = []


def run(hosts: list[SimulatedHost], rate: float, until_s: float, random: Random, start_s: float = 0.0) -> None:
    balancer = LoadBalancer(hosts, random)
    ends: list[tuple[float, int, SimulatedHost, float]] = []
    for number, now_s in enumerate(arrivals(rate, start_s, until_s, random)):
        while ends and ends[0][0] <= now_s:
            end_s, _, host, took_s = heapq.heappop(ends)
            host.load -= 1
            balancer.record(host, took_s, end_s, failed=host.fails)
        host = balancer.pick(now_s)
        host.load += 1
        host.calls.append(now_s)
        took_s = host.latency_of(random)
        heapq.heappush(ends, (now_s + took_s, number, host, took_s))
    for *_, host, _ in ends:
        host.load -= 1


def arrivals(rate: float, start_s: float, until_s: float, random: Random) -> Iterator[float]:
    now_s = start_s
    while (now_s := now_s + random.expovariate(rate)) < until_s:
        yield now_s


def around(mean_s: float) -> Latency:
    """Half of it certain, half of it exponential: as of a service in a network."""
    return lambda random: mean_s / 2 + random.expovariate(2 / mean_s)


seeds = st.integers(0, 2**32).map(Random)


@given(seeds, st.integers(2, 8), st.sampled_from([0.2, 3.0, 20.0]))
def test_equal_addresses_share_the_load(random: Random, count: int, in_flight: float) -> None:
    """Of a quiet source, and of a busy one.

    Over 400 calls each: for a hundred, one slow answer may cost an address most of its share.
    """
    hosts = [SimulatedHost(around(0.010)) for _ in range(count)]
    run(hosts, in_flight / 0.010, 400 * count * 0.010 / in_flight, random)
    calls = [len(host.calls) for host in hosts]
    assert sum(calls) / count * 0.4 <= min(calls)
    assert max(calls) <= sum(calls) / count * 1.8


@given(seeds, st.integers(1, 4), st.floats(4, 40))
def test_a_slow_or_far_address_gets_little_but_is_tried_again(random: Random, others: int, factor: float) -> None:
    slow = SimulatedHost(around(0.005 * factor))
    hosts = [*(SimulatedHost(around(0.005)) for _ in range(others)), slow]
    run(hosts, 20, 120, random)
    fair = sum(len(host.calls) for host in hosts) / len(hosts)
    assert len(slow.calls) <= 0.35 * fair
    assert any(now_s > 30 for now_s in slow.calls)


@given(seeds, st.integers(1, 4))
def test_a_hanging_address_is_left_within_a_few_calls(random: Random, others: int) -> None:
    dead = SimulatedHost(around(0.005))
    hosts = [*(SimulatedHost(around(0.005)) for _ in range(others)), dead]
    run(hosts, 200, 3, random)
    dead.calls.clear()
    dead.latency_of = lambda _: inf
    run(hosts, 200, 8, random, start_s=3)
    assert len(dead.calls) <= 16


@given(seeds, st.integers(1, 4))
def test_an_address_that_fails_fast_attracts_no_calls(random: Random, others: int) -> None:
    failing = SimulatedHost(around(0.0005), fails=True)
    hosts = [*(SimulatedHost(around(0.020)) for _ in range(others)), failing]
    run(hosts, 100, 10, random)
    assert len(failing.calls) <= 12


@given(seeds, st.integers(1, 4))
def test_a_new_address_is_warmed_up_and_then_has_its_share(random: Random, others: int) -> None:
    """It is faster than the others, as an idle one is."""
    hosts = [SimulatedHost(around(0.010)) for _ in range(others)]
    run(hosts, 200, 2, random)
    new = SimulatedHost(around(0.004))
    new.latency.restart(2.0)
    run([*hosts, new], 200, 4 + WARM_UP_S, random, start_s=2)
    fair_per_s = 200 / (others + 1)
    first_s = sum(now_s < 3 for now_s in new.calls)
    last_s = sum(now_s >= 3 + WARM_UP_S for now_s in new.calls)
    assert 1 <= first_s <= 200 * 3 * FIRST_SHARE
    assert last_s >= 0.7 * fair_per_s


@given(seeds, st.integers(2, 5))
def test_weights_share_the_load_of_equal_addresses(random: Random, ratio: int) -> None:
    light, heavy = SimulatedHost(around(0.010)), SimulatedHost(around(0.010), weight=ratio)
    run([light, heavy], 1000, 2, random)
    assert ratio / 2 <= len(heavy.calls) / len(light.calls) <= ratio * 2
