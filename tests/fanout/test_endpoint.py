"""Endpoints: which to avoid, and which are slow relative to their siblings."""

from __future__ import annotations

from random import Random

import pytest

from cashier.fanout.breaker import BreakerSettings
from cashier.fanout.endpoint import Endpoint, OnRecovery, avoid_for_second_call, unavailable, update_slow_marks
from cashier.fanout.limiter import LimiterSettings
from cashier.fanout.source_metrics import EndpointMetrics
from cashier.metrics.store import Store

MS_NS = 1_000_000
NOW_NS = 1_000_000_000_000
LEASE_NS = 200 * MS_NS
CEILING_NS = 100 * MS_NS


def new_endpoint(*, limit: int = 10, on_recovery: OnRecovery = lambda address, open_ns: None) -> Endpoint:
    metrics = EndpointMetrics(Store(), "card", "an address")
    settings = BreakerSettings(), LimiterSettings(start=limit)
    made = Endpoint("an address", CEILING_NS, *settings, Random(1), metrics, on_recovery=on_recovery)
    made.breaker.roll(NOW_NS)
    return made


def new_endpoints(count: int) -> tuple[Endpoint, ...]:
    return tuple(new_endpoint() for _ in range(count))


def break_it(sick: Endpoint) -> None:
    while sick.breaker.closed:
        sick.record_failure(NOW_NS, NOW_NS, counted=False, overload=False)


def fill(full: Endpoint) -> None:
    full.in_flight = full.limiter.limit


def test_healthy_endpoints_are_not_avoided() -> None:
    assert unavailable(new_endpoints(3), NOW_NS, LEASE_NS) == (0, False)


def test_open_and_full_endpoints_are_avoided() -> None:
    endpoints = new_endpoints(3)
    break_it(endpoints[0])
    assert unavailable(endpoints, NOW_NS, LEASE_NS) == (0b001, False)
    fill(endpoints[2])
    assert unavailable(endpoints, NOW_NS, LEASE_NS) == (0b101, True)
    break_it(endpoints[1])
    assert unavailable(endpoints, NOW_NS, LEASE_NS) == (0b111, True)


def test_an_endpoint_whose_probe_is_due_gets_this_call_alone() -> None:
    endpoints = new_endpoints(3)
    break_it(endpoints[1])
    due_ns = endpoints[1].breaker.probe_due_ns
    assert unavailable(endpoints, due_ns - 1, LEASE_NS) == (0b010, False)
    assert unavailable(endpoints, due_ns, LEASE_NS) == (0b101, False)
    assert unavailable(endpoints, due_ns, LEASE_NS) == (0b010, False)


def test_two_due_probes_go_out_one_after_the_other() -> None:
    endpoints = new_endpoints(3)
    break_it(endpoints[0])
    break_it(endpoints[2])
    due_ns = max(endpoints[0].breaker.probe_due_ns, endpoints[2].breaker.probe_due_ns)
    assert [unavailable(endpoints, due_ns, LEASE_NS)[0] for _ in range(3)] == [0b110, 0b011, 0b101]


def test_a_second_call_avoids_the_first_and_all_open_or_full_endpoints() -> None:
    endpoints = new_endpoints(3)
    assert avoid_for_second_call(endpoints, endpoints[1]) == 0b010
    break_it(endpoints[0])
    assert avoid_for_second_call(endpoints, endpoints[1]) == 0b011
    fill(endpoints[2])
    assert avoid_for_second_call(endpoints, endpoints[1]) is None


def test_a_sole_endpoint_gets_the_second_call_unless_it_is_open_or_full() -> None:
    [only_endpoint] = new_endpoints(1)
    assert avoid_for_second_call([only_endpoint], only_endpoint) == 0
    fill(only_endpoint)
    assert avoid_for_second_call([only_endpoint], only_endpoint) is None
    only_endpoint.in_flight = 0
    break_it(only_endpoint)
    assert avoid_for_second_call([only_endpoint], only_endpoint) is None


@pytest.mark.parametrize(
    ("latencies_ms", "slow_ms"),
    [
        ((2, 2, 90), 7),
        ((30, 2, 40), 90),
        ((10, 20, 90), 60),
        ((50, 60, 70), 100),
        ((0, 0, 0), 100),
        ((0, 4, 0), 12),
        ((0, 4, 30), 12),
    ],
)
def test_the_slow_mark_is_three_times_the_usual_latency_and_five_ms_more_within_the_ceiling(
    latencies_ms: tuple[int, ...], slow_ms: int
) -> None:
    endpoints = new_endpoints(3)
    for each, latency_ms in zip(endpoints, latencies_ms, strict=True):
        each.latency_ns = latency_ms * MS_NS
    update_slow_marks(endpoints, CEILING_NS)
    assert [each.slow_ns for each in endpoints] == [slow_ms * MS_NS] * 3


def test_an_open_endpoint_does_not_influence_the_slow_marks() -> None:
    endpoints = new_endpoints(3)
    for each, latency_ms in zip(endpoints, (1, 20, 30), strict=True):
        each.latency_ns = latency_ms * MS_NS
    break_it(endpoints[0])
    update_slow_marks(endpoints, CEILING_NS)
    assert endpoints[1].slow_ns == 60 * MS_NS


def test_endpoints_that_have_just_recovered_are_no_reference_for_five_seconds() -> None:
    endpoints = new_endpoints(2)
    for each in endpoints:
        break_it(each)
        each.breaker.probe_soon(NOW_NS)
        assert each.admits_probe(NOW_NS, LEASE_NS)
        each.record_answer(NOW_NS, NOW_NS + 4 * MS_NS, counted=False)
        assert each.breaker.closed
    marks = []
    for _ in range(6):
        update_slow_marks(endpoints, CEILING_NS)
        marks.append(endpoints[0].slow_ns // MS_NS)
    assert marks == [100] * 5 + [12]


def test_the_slow_mark_of_a_sole_endpoint_is_the_ceiling() -> None:
    [only_endpoint] = new_endpoints(1)
    only_endpoint.latency_ns = MS_NS
    update_slow_marks([only_endpoint], CEILING_NS)
    assert only_endpoint.slow_ns == CEILING_NS


def test_an_answer_at_the_slow_mark_is_a_failure_and_one_before_is_a_success() -> None:
    endpoint = new_endpoint()
    endpoint.record_answer(NOW_NS, NOW_NS + CEILING_NS - 1, counted=False)
    endpoint.record_answer(NOW_NS, NOW_NS + CEILING_NS, counted=False)
    endpoint.record_answer(NOW_NS, NOW_NS + CEILING_NS, counted=True)
    assert repr(endpoint) == "<an address: 0 in flight, <Breaker closed: 1 bad, 1 good>, <Limiter 10>>"


def test_the_mean_latency_moves_by_a_sixteenth_per_call() -> None:
    endpoint = new_endpoint()
    endpoint.record_answer(NOW_NS, NOW_NS + 16 * MS_NS, counted=False)
    assert endpoint.latency_ns == 16 * MS_NS
    endpoint.record_answer(NOW_NS, NOW_NS + 32 * MS_NS, counted=False)
    assert endpoint.latency_ns == 17 * MS_NS


@pytest.mark.parametrize(
    ("limit", "others", "grows"),
    [(10, 3, False), (10, 4, True), (1, 0, True), (2, 0, True), (3, 0, False), (3, 1, True)],
)
def test_the_limit_grows_only_while_half_of_it_is_used(limit: int, others: int, grows: bool) -> None:
    """The answered call counts, though no longer in flight: a limit of one could not grow."""
    endpoint = new_endpoint(limit=limit)
    endpoint.in_flight = others
    for _ in range(limit):
        endpoint.record_answer(NOW_NS, NOW_NS + MS_NS, counted=False)
    assert (endpoint.limiter.limit > limit) is grows


def test_overload_cuts_the_limit_and_mere_slowness_does_not() -> None:
    endpoint = new_endpoint()
    endpoint.record_failure(NOW_NS, NOW_NS, counted=False, overload=False)
    assert endpoint.limiter.limit == 10
    endpoint.record_failure(NOW_NS, NOW_NS, counted=True, overload=True)
    assert endpoint.limiter.limit == 9
    assert endpoint.breaker.failures == 1, "counted twice"


def test_the_limit_does_not_change_while_the_breaker_is_open() -> None:
    endpoint = new_endpoint()
    break_it(endpoint)
    for _ in range(20):
        endpoint.record_failure(NOW_NS, NOW_NS, counted=False, overload=True)
    assert endpoint.limiter.limit == 10


def test_after_recovery_the_limit_is_that_of_the_start() -> None:
    sick = new_endpoint(limit=10)
    for moment_ns in range(NOW_NS, NOW_NS + 4):
        sick.record_failure(moment_ns, moment_ns, counted=True, overload=True)
    assert sick.limiter.limit < 10
    break_it(sick)
    probe_ns = sick.breaker.probe_due_ns
    assert sick.breaker.admits(probe_ns, LEASE_NS)
    sick.record_answer(probe_ns, probe_ns + MS_NS, counted=False)
    assert sick.breaker.closed
    assert sick.limiter.limit == 10


def test_a_recovery_reports_its_address_and_the_time_since_the_breaker_first_opened() -> None:
    recoveries: list[tuple[str, int]] = []
    sick = new_endpoint(on_recovery=lambda address, open_ns: recoveries.append((address, open_ns)))
    break_it(sick)
    for answers in (False, False, True):
        probe_ns = sick.breaker.probe_due_ns
        assert sick.breaker.admits(probe_ns, LEASE_NS)
        if answers:
            sick.record_answer(probe_ns, probe_ns + MS_NS, counted=False)
        else:
            sick.record_failure(probe_ns, probe_ns, counted=False, overload=False)
    assert recoveries == [("an address", probe_ns + MS_NS - NOW_NS)]
