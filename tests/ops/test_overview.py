"""The overview: rates and quantiles, states of workers, and what needs attention."""

from __future__ import annotations

import msgspec
import pytest

from cashier.fanout.breaker import BreakerState
from cashier.ops.overview import Attention, Health, Overview, SourceOverview
from cashier.ops.record_store import RecordStore
from cashier.telemetry.worker_state import EndpointState, PaymentsState, Reload, ReloadResult
from tests.ops.fixtures import (
    AT,
    URL,
    Port,
    configuration_state,
    failure,
    live_payment,
    source,
    worker,
)

ANSWERS = "cashier_source_answers_total"
CALLS = "cashier_source_calls_total"
DURATION = "cashier_source_duration_seconds"
CONSULTATION = "cashier_consultation_duration_seconds"
MS = 1_000_000


def sampled(port: Port) -> Port:
    port.live.history.sample()
    return port


def after(port: Port, seconds: float = 10.0) -> Overview:
    port.clock.seconds += seconds
    return port.live.overview()


def of(overview: Overview, name: str) -> SourceOverview:
    return next(each for each in overview.sources if each.name == name)


def subjects(overview: Overview) -> list[str]:
    return [each.subject for each in overview.attention]


def test_rates_and_quantiles_are_of_the_window_and_not_of_the_whole_run() -> None:
    port = Port()
    old = port.metrics.histogram(CONSULTATION, "SCAN", "complete")
    for _ in range(1000):
        old.record(900 * MS)
    sampled(port)
    for _ in range(50):
        old.record(4 * MS)
    overview = after(port)
    assert overview.consultations.rate == 5.0
    assert overview.consultations.quantiles.p99_ms is not None
    assert 2 < overview.consultations.quantiles.p99_ms <= 5
    assert overview.consultations.outcomes == {"complete": 5.0}


def test_nothing_is_known_before_the_first_sample_and_without_traffic() -> None:
    port = Port()
    assert port.live.overview().consultations.quantiles.p50_ms is None
    overview = after(sampled(port))
    assert overview.consultations.answered is None
    assert {each.health for each in overview.sources} == {Health.IDLE}
    assert overview.attention == ()


def test_a_source_without_answers_is_bad_comes_first_and_says_what_it_costs_and_what_to_do() -> None:
    port = sampled(Port())
    port.workers = [worker(sources=(source("order"), source("quota", failures=(failure(),))))]
    port.metrics.counter(ANSWERS, "quota", "ERROR", "STATUS_5XX").add(30)
    port.metrics.counter(ANSWERS, "quota", "FRESH", "").add(70)
    port.metrics.counter(ANSWERS, "order", "FRESH", "").add(100)
    overview = after(port)
    quota = overview.sources[0]
    assert (quota.name, quota.health, quota.bad, quota.rate) == ("quota", Health.BAD, 0.3, 10.0)
    assert quota.finding == "30.0 % of asks get no answer (STATUS_5XX); methods that it could refuse are undetermined."
    assert "log has the cause" in quota.action
    assert quota.answers[0].reason == "STATUS_5XX"
    assert overview.attention == (Attention(Health.BAD, "Source quota", quota.finding, quota.action, "/#source-quota"),)
    assert of(overview, "order").health is Health.GOOD


def test_asks_that_were_not_needed_are_no_failures() -> None:
    port = sampled(Port())
    port.metrics.counter(ANSWERS, "quota", "SKIPPED", "NOT_NEEDED").add(30)
    port.metrics.counter(ANSWERS, "quota", "FRESH", "").add(1)
    assert of(after(port), "quota").bad == 0


def test_an_open_breaker_hides_the_reason_and_the_last_failure_has_it() -> None:
    port = sampled(Port())
    shut = EndpointState(URL, BreakerState.OPEN, 0, 320, 7.5, 1.5)
    port.workers = [worker(sources=(source("card", endpoints=(shut,), failures=(failure(reason="DNS"),)),))]
    port.metrics.counter(ANSWERS, "card", "BREAKER_OPEN", "BREAKER_OPEN").add(10)
    port.metrics.counter(ANSWERS, "card", "TIMEOUT", "TIMEOUT").add(5)  # of some seconds ago
    card = of(after(port), "card")
    assert card.finding.startswith("Not called: the breaker is open on every address (DNS);")
    assert card.health is Health.BAD
    assert card.breaker is BreakerState.OPEN
    assert "does not resolve" in card.action


@pytest.mark.parametrize(("calls", "health"), [(20, Health.GOOD), (200, Health.WARN)])
def test_a_slow_p99_needs_attention_unless_it_is_that_of_a_few_calls(calls: int, health: Health) -> None:
    port = sampled(Port())
    for _ in range(calls):
        port.metrics.counter(CALLS, "card", "first").add()
        port.metrics.counter(ANSWERS, "card", "FRESH", "").add()
        port.metrics.histogram(DURATION, "card", URL, "answered").record(140 * MS)
    assert of(after(port), "card").health is health


def test_states_of_several_workers_are_joined() -> None:
    port = sampled(Port())
    shut = EndpointState(URL, BreakerState.OPEN, 1, 300, 20.0, 1.5)
    told = (failure(age_s=9.0),)
    port.workers = [
        worker(11, sources=(source("card", failures=told),)),
        worker(12, sources=(source("card", endpoints=(shut,), failures=(failure(age_s=1.0),)),)),
    ]
    (card,) = after(port).sources
    (endpoint,) = card.endpoints
    assert (endpoint.open_in, endpoint.workers, endpoint.in_flight, endpoint.limit) == (1, 2, 4, 620)
    assert endpoint.health is Health.WARN
    assert [(each.times, each.age_s) for each in card.failures] == [(82, 1.0)]
    assert (card.extra_calls, card.extra_calls_allowed) == (4, 20.0)


def test_a_silent_worker_needs_attention_and_its_state_no_longer_counts() -> None:
    port = sampled(Port())
    port.workers = [worker(11), worker(12, at=AT - 30)]
    overview = after(port)
    assert subjects(overview) == ["Workers"]
    assert "12" in overview.attention[0].finding
    assert [each.reports for each in overview.runtime.workers] == [True, False]
    assert of(overview, "card").endpoints[0].workers == 1


def test_no_worker_at_all_needs_attention() -> None:
    port = sampled(Port())
    port.workers = []
    overview = after(port)
    assert overview.attention[0].finding == "No worker reports."
    assert overview.configuration is None


@pytest.mark.parametrize(("ago_s", "health"), [(5.0, Health.WARN), (300.0, Health.BAD)])
def test_an_unknown_payment_needs_a_person_once_look_ups_have_had_their_time(ago_s: float, health: Health) -> None:
    port = sampled(Port())
    listed = (live_payment(sent_ago_s=ago_s), live_payment("pay_2", unknown=False))
    port.workers = [worker(payments=PaymentsState(2, 1, listed))]
    overview = after(port)
    assert (overview.payments.live, overview.payments.unknown) == (2, 1)
    assert overview.payments.unknown_oldest_s == ago_s
    assert overview.attention[0].health is health
    assert overview.payments.listed[0].payment.payment_id == "pay_1"


def test_a_refused_reload_and_workers_that_differ_need_attention() -> None:
    port = sampled(Port())
    refused = Reload(AT, ReloadResult.REFUSED, "ffff", ("cashier.toml: [consult] deadline_ms is wrong",))
    port.workers = [
        worker(11, configuration=configuration_state(loaded_at=AT, reloads=(refused,))),
        worker(12, configuration=configuration_state(digest="eeee")),
    ]
    overview = after(port)
    assert subjects(overview) == ["Configuration", "Configuration"]
    assert overview.configuration is not None
    assert overview.configuration.differs == (12,)


def test_late_answers_and_failed_consultations_are_counted_apart() -> None:
    port = sampled(Port())
    for outcome, number in (("complete", 90), ("unavailable", 10)):
        for _ in range(number):
            port.metrics.histogram(CONSULTATION, "SCAN", outcome).record(MS)
    overview = after(port)
    assert overview.consultations.answered == 0.9
    assert overview.consultations.within_deadline == 1.0
    assert subjects(overview) == ["Consultations"]
    # A failed one may be late as well: both shares are of all consultations, as in the alerts.
    port.metrics.counter("cashier_consultations_late_total").add(5)
    late = after(port).consultations
    assert (late.answered, late.within_deadline) == (0.9, 0.95)


def test_traces_that_the_collector_did_not_get_need_attention() -> None:
    port = Port()
    assert after(sampled(port)).runtime.trace_exports == {}
    port.metrics.counter("cashier_trace_exports_total", "exported").add(9)
    assert after(port).attention == ()
    port.metrics.counter("cashier_trace_exports_total", "refused").add(2)
    overview = after(port)
    assert overview.runtime.trace_exports == {"exported": 9, "refused": 2}
    assert (subjects(overview), overview.runtime.traces_lost) == (["Traces"], 2)


def test_trends_have_a_point_for_each_step() -> None:
    port = sampled(Port())
    for number in range(3):
        port.metrics.counter(ANSWERS, "order", "FRESH", "").add(10 * number)
        port.metrics.histogram(DURATION, "order", URL, "answered").record(4 * MS)
        port.pass_seconds(5)
    assert [point.rate for point in of(after(port, 0.0), "order").trend] == [0.0, 2.0, 4.0]


def test_the_window_is_half_a_minute_at_most() -> None:
    port = sampled(Port())
    for _ in range(20):
        port.pass_seconds(5)
    assert 25 <= after(port, 1.0).window_s <= 31


def test_the_endpoint_answers_with_the_documented_struct() -> None:
    port = sampled(Port())
    response = port.client().get("/api/overview")
    assert response.headers["content-type"] == "application/json"
    assert msgspec.json.decode(response.content, type=Overview).window_s == 0.0


def test_payments_of_a_worker_that_has_gone_are_listed_apart() -> None:
    port = sampled(Port())
    store = RecordStore()
    for pid, payment_id in ((1, "pay_left"), (2, "pay_live")):
        store.put_state(worker(pid=pid, payments=PaymentsState(1, 1, (live_payment(payment_id),))))
    store.worker_left(1)
    port.live._unsettled = store.payments
    port.workers = list(store.states.values())
    overview = after(port)
    payments = overview.payments
    assert "left by a worker that has gone" in " ".join(each.finding for each in overview.attention)
    assert [each.payment.payment_id for each in payments.listed] == ["pay_live"]
    assert [(each.payment.payment_id, each.worker) for each in payments.left] == [("pay_left", 1)]
    html = port.client().get("/payments").text
    assert "Left by workers that have gone" in html
    assert "pay_left" in html


def test_loop_lag_is_the_metric_s() -> None:
    port = sampled(Port())
    for _ in range(99):
        port.metrics.histogram("cashier_loop_lag_seconds").record(500_000)
    port.metrics.histogram("cashier_loop_lag_seconds").record(80 * MS)
    lag = after(port).runtime.loop_lag
    assert (lag.p50_ms, lag.p99_ms) == (0.51, 1.0)
