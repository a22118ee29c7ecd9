"""Weather: draws, parsing, and invalid profiles."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.weather import (
    CallConditions,
    Constant,
    Fault,
    FaultProfile,
    Lognormal,
    PaymentFault,
    Stragglers,
    Uniform,
    Weather,
)
from cashier.sandbox.weather_parser import BadWeather, parse_profile, parse_source
from cashier.sandbox.weather_presets import PRESETS, weather_named

STILL = FaultProfile(Constant(0))


def draws(weather: Weather, source: str, count: int = 4_000) -> list[CallConditions]:
    return [weather.draw(source) for _ in range(count)]


def draws_under(profile: FaultProfile, count: int = 4_000) -> list[CallConditions]:
    weather = weather_named("still", seed=3)
    weather.change("card", profile)
    return draws(weather, "card", count)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_survives_a_round_trip_through_json(preset: str) -> None:
    for source, profile in weather_named(preset).to_json().items():
        assert (
            parse_profile(source, msgspec.json.decode(msgspec.json.encode(profile)), STILL) == PRESETS[preset][source]
        )


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadWeather, match="the nearest is stormy"):
        weather_named("stromy")


def test_still_weather_has_no_latency_and_no_faults() -> None:
    assert set(draws(weather_named("still"), "order", 100)) == {CallConditions(0)}


def test_a_constant_is_the_same_each_time() -> None:
    assert set(draws_under(FaultProfile(Constant(5)), 50)) == {CallConditions(0.005)}


def test_a_uniform_latency_lies_between_its_bounds() -> None:
    drawn = [conditions.latency_s for conditions in draws_under(FaultProfile(Uniform(2, 6)))]
    assert 0.002 <= min(drawn) < 0.0022
    assert 0.0058 < max(drawn) <= 0.006


def test_a_lognormal_latency_has_its_median_and_its_99th_percentile() -> None:
    drawn = sorted(conditions.latency_s for conditions in draws_under(FaultProfile(Lognormal(4, 20)), 20_000))
    assert drawn[10_000] == pytest.approx(0.004, rel=0.05)
    assert drawn[19_800] == pytest.approx(0.020, rel=0.10)


def test_stragglers_have_their_share_and_factor() -> None:
    drawn = Counter(
        conditions.latency_s for conditions in draws_under(FaultProfile(Constant(1), Stragglers(1_000, 12)), 10_000)
    )
    assert set(drawn) == {0.001, 0.012}
    assert drawn[0.012] == pytest.approx(1_000, rel=0.15)


def test_each_fault_has_its_share() -> None:
    drawn = Counter(
        conditions.fault
        for conditions in draws_under(FaultProfile(Constant(0), faults={Fault.HANG: 1_000, Fault.RESET: 3_000}), 10_000)
    )
    assert drawn[Fault.HANG] == pytest.approx(1_000, rel=0.15)
    assert drawn[Fault.RESET] == pytest.approx(3_000, rel=0.10)
    assert drawn[None] == 10_000 - drawn[Fault.HANG] - drawn[Fault.RESET]


def test_a_share_of_10000_affects_every_call() -> None:
    assert {
        conditions.fault for conditions in draws_under(FaultProfile(Constant(0), faults={Fault.ERROR: 10_000}))
    } == {Fault.ERROR}


def test_the_same_seed_draws_the_same_weather() -> None:
    assert draws(weather_named("stormy", seed=1), "quota") == draws(weather_named("stormy", seed=1), "quota")
    assert draws(weather_named("stormy", seed=1), "quota") != draws(weather_named("stormy", seed=2), "quota")


def test_calls_of_one_source_do_not_change_the_draws_of_another() -> None:
    alone, beside = weather_named("stormy"), weather_named("stormy")
    draws(beside, "card")
    assert draws(alone, "quota") == draws(beside, "quota")


def test_two_sources_with_the_same_profile_draw_independently() -> None:
    weather = weather_named("still")
    for source in ("card", "quota"):
        weather.change(source, FaultProfile(Uniform(1, 100)))
    assert draws(weather, "card", 10) != draws(weather, "quota", 10)


def test_a_change_lasts_until_it_is_restored() -> None:
    weather = weather_named("still")
    weather.change("card", FaultProfile(Constant(9)))
    weather.change("quota", FaultProfile(Constant(8)))
    assert (weather.draw("card"), weather.draw("order")) == (CallConditions(0.009), CallConditions(0))
    weather.restore("card")
    assert (weather.draw("card"), weather.draw("quota")) == (CallConditions(0), CallConditions(0.008))
    weather.restore()
    assert weather.draw("quota") == CallConditions(0)


def test_missing_parts_of_a_profile_are_as_at_the_start() -> None:
    start = FaultProfile(Constant(3), Stragglers(100, 12))
    assert parse_profile("card", {"faults": {"hang": 50}}, start) == FaultProfile(
        Constant(3), Stragglers(100, 12), {Fault.HANG: 50}
    )


FIXED = {"shape": "constant", "ms": 5}
INVALID: list[tuple[str, Any, str, str | float | None]] = [
    ("card", [], "weather", "latency"),
    ("card", {"latncy": FIXED}, "weather.latncy", "latency"),
    ("card", {"latency": {"shape": "lognorm", "median_ms": 1, "p99_ms": 2}}, "latency.shape", "lognormal"),
    ("card", {"latency": 5}, "latency.shape", None),
    ("card", {"latency": FIXED | {"ms": -1}}, "latency.ms", 0),
    ("card", {"latency": FIXED | {"ms": 1e9}}, "latency.ms", 3_600_000),
    ("card", {"latency": FIXED | {"ms": "5"}}, "latency.ms", 0),
    ("card", {"latency": FIXED | {"ms": True}}, "latency.ms", 0),
    ("card", {"latency": {"shape": "constant"}}, "latency.ms", 0),
    ("card", {"latency": FIXED | {"high": 1}}, "latency.high", None),
    ("card", {"latency": {"shape": "uniform", "low_ms": 7, "high_ms": 3}}, "latency.high_ms", 7),
    ("card", {"latency": {"shape": "lognormal", "median_ms": 7, "p99_ms": 3}}, "latency.p99_ms", 7),
    ("card", {"latency": {"shape": "lognormal", "median_ms": 0, "p99_ms": 3}}, "latency.median_ms", 0.001),
    ("card", {"stragglers": {"share_bps": 10_001, "factor": 2}}, "stragglers.share_bps", 10_000),
    ("card", {"stragglers": {"share_bps": 1.6, "factor": 2}}, "stragglers.share_bps", 2),
    ("card", {"stragglers": {"share_bps": 1, "factor": 0.5}}, "stragglers.factor", 1),
    ("card", {"faults": {"hnag": 10}}, "faults.hnag", "hang"),
    ("card", {"faults": {"hang": 20_000}}, "faults.hang", 10_000),
    ("card", {"faults": {"hang": 6_000, "reset": 5_000}}, "faults.reset", 4_000),
    ("card", {"faults": {"cut": 1}}, "faults.cut", None),
    ("risk", {"faults": {"pay_frist": 1}}, "faults.pay_frist", None),
    ("engine", {"faults": {"pay_frist": 1}}, "faults.pay_frist", "pay_first"),
    ("engine", {"next": "reset"}, "next", "[]"),
    ("engine", {"next": ["reste"]}, "next.fault", "reset"),
    ("engine", {"next": [{"fault": "reset", "on": "sumbit"}]}, "next.on", "submit"),
    ("engine", {"next": [{"fault": "reset", "times": 2}]}, "next.times", None),
    ("engine", {"next": ["reset"] * 101}, "next", 100),
]


@pytest.mark.parametrize(("source", "profile", "field", "nearest"), INVALID)
def test_an_invalid_profile_names_the_field_and_a_close_valid_value(
    source: str, profile: Any, field: str, nearest: str | float | None
) -> None:
    with pytest.raises(BadWeather) as bad:
        parse_profile(source, profile, STILL)
    assert (bad.value.field, bad.value.nearest) == (field, nearest)


@pytest.mark.parametrize(
    ("source", "profile", "field", "start"),
    [
        ("quota", {"faults": {"stall": 1}}, "faults.stall", "'stall' exists only for engine; quota has hang, error, "),
        ("risk", {"next": ["stall"]}, "next.fault", "'stall' exists only for engine; risk has hang, error, "),
        ("card", {"faults": {"cut": 1}}, "faults.cut", "'cut' exists only for risk, engine; card has hang, "),
    ],
)
def test_a_fault_of_other_sources_is_refused_with_their_names(
    source: str, profile: Any, field: str, start: str
) -> None:
    with pytest.raises(BadWeather) as bad:
        parse_profile(source, profile, STILL)
    assert (bad.value.field, bad.value.nearest) == (field, None)
    assert bad.value.detail.startswith(start)
    assert "nearest" not in str(bad.value)


@pytest.mark.parametrize("source", ["channel", "risk"])
def test_an_answer_without_an_identity_cannot_have_a_wrong_one(source: str) -> None:
    with pytest.raises(BadWeather, match="wrong_identity"):
        parse_profile(source, {"faults": {"wrong_identity": 1}}, STILL)


def test_a_misspelt_source_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadWeather, match="the nearest is marketing"):
        parse_source("marketting")
    assert [parse_source(source) for source in SOURCES] == list(SOURCES)


def planned_faults(weather: Weather, source: str) -> list[str]:
    return [planned["fault"] for planned in weather.to_json()[source]["next"]]


def test_a_planned_fault_applies_to_one_call_before_any_draw() -> None:
    weather = weather_named("still")
    weather.change("engine", parse_profile("engine", {"next": ["reset", "hang"]}, STILL))
    assert [weather.draw_call("engine", "submit").fault for _ in range(3)] == [Fault.RESET, Fault.HANG, None]
    assert planned_faults(weather, "engine") == []


def test_a_planned_fault_waits_for_the_call_of_its_name() -> None:
    weather = weather_named("still")
    body = {"next": [{"fault": "pay_first", "on": "reverse"}, {"fault": "cut", "on": "submit"}, "garbage"]}
    weather.change("engine", parse_profile("engine", body, STILL))
    assert weather.draw_call("engine", "submit").fault is PaymentFault.CUT
    assert weather.draw_call("engine", "look_up").fault is Fault.GARBAGE
    assert weather.draw_call("engine", "look_up").fault is None
    assert planned_faults(weather, "engine") == ["pay_first"]
    assert weather.draw_call("engine", "reverse").fault is PaymentFault.PAY_FIRST


def test_restoring_the_weather_drops_planned_faults() -> None:
    weather = weather_named("still")
    weather.change("engine", parse_profile("engine", {"next": ["reset"]}, STILL))
    weather.restore()
    assert weather.draw_call("engine", "submit").fault is None


@pytest.mark.parametrize("source", SOURCES)
def test_every_fault_of_a_source_survives_a_round_trip(source: str) -> None:
    faults = {fault.value: 100 for fault in SOURCES[source].possible_faults}
    body = {"faults": faults, "next": [*faults, *({"fault": "hang", "on": call} for call in SOURCES[source].calls)]}
    profile = parse_profile(source, body, STILL)
    assert parse_profile(source, msgspec.json.decode(msgspec.json.encode(profile.to_json())), STILL) == profile
    assert ("cut" in faults) == (source in ("risk", "engine"))
    assert ("stall" in faults) == (source == "engine")
