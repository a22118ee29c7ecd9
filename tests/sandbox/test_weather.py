"""Weather: what is drawn, what is read, what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from cashier.sandbox.weather import (
    CALL_NAMES,
    SOURCES,
    Constant,
    Fault,
    FaultProfile,
    Lognormal,
    PaymentFault,
    CallConditions,
    Stragglers,
    Uniform,
    Weather,
    possible_faults,
)
from cashier.sandbox.weather_parser import BadWeather, parse_profile, parse_source
from cashier.sandbox.weather_presets import PRESETS, weather_named

STILL = FaultProfile(Constant(0))


def spells(weather: Weather, source: str, count: int = 4_000) -> list[CallConditions]:
    return [weather.draw(source) for _ in range(count)]


def under(forecast: FaultProfile, count: int = 4_000) -> list[CallConditions]:
    weather = weather_named("still", seed=3)
    weather.change("card", forecast)
    return spells(weather, "card", count)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_reads_back_as_it_is_told(preset: str) -> None:
    for source, told in weather_named(preset).to_json().items():
        assert parse_profile(source, msgspec.json.decode(msgspec.json.encode(told)), STILL) == PRESETS[preset][source]


def test_an_unknown_preset_is_told_the_nearest() -> None:
    with pytest.raises(BadWeather, match="the nearest is stormy"):
        weather_named("stromy")


def test_still_weather_neither_waits_nor_breaks() -> None:
    assert set(spells(weather_named("still"), "order", 100)) == {CallConditions(0)}


def test_a_constant_is_the_same_each_time() -> None:
    assert set(under(FaultProfile(Constant(5)), 50)) == {CallConditions(0.005)}


def test_a_uniform_latency_lies_between_its_bounds() -> None:
    drawn = [spell.latency_s for spell in under(FaultProfile(Uniform(2, 6)))]
    assert 0.002 <= min(drawn) < 0.0022
    assert 0.0058 < max(drawn) <= 0.006


def test_a_lognormal_latency_has_its_median_and_its_99th_percentile() -> None:
    drawn = sorted(spell.latency_s for spell in under(FaultProfile(Lognormal(4, 20)), 20_000))
    assert drawn[10_000] == pytest.approx(0.004, rel=0.05)
    assert drawn[19_800] == pytest.approx(0.020, rel=0.10)


def test_stragglers_are_a_share_and_as_much_slower_as_said() -> None:
    drawn = Counter(spell.latency_s for spell in under(FaultProfile(Constant(1), Stragglers(1_000, 12)), 10_000))
    assert set(drawn) == {0.001, 0.012}
    assert drawn[0.012] == pytest.approx(1_000, rel=0.15)


def test_each_fault_comes_in_its_share() -> None:
    drawn = Counter(
        spell.fault
        for spell in under(FaultProfile(Constant(0), faults={Fault.HANG: 1_000, Fault.RESET: 3_000}), 10_000)
    )
    assert drawn[Fault.HANG] == pytest.approx(1_000, rel=0.15)
    assert drawn[Fault.RESET] == pytest.approx(3_000, rel=0.10)
    assert drawn[None] == 10_000 - drawn[Fault.HANG] - drawn[Fault.RESET]


def test_a_whole_share_leaves_no_call_whole() -> None:
    assert {spell.fault for spell in under(FaultProfile(Constant(0), faults={Fault.ERROR: 10_000}))} == {Fault.ERROR}


def test_the_same_seed_draws_the_same_weather() -> None:
    assert spells(weather_named("stormy", seed=1), "quota") == spells(weather_named("stormy", seed=1), "quota")
    assert spells(weather_named("stormy", seed=1), "quota") != spells(weather_named("stormy", seed=2), "quota")


def test_calls_of_one_source_do_not_disturb_the_weather_of_another() -> None:
    alone, beside = weather_named("stormy"), weather_named("stormy")
    spells(beside, "card")
    assert spells(alone, "quota") == spells(beside, "quota")


def test_two_sources_under_the_same_forecast_do_not_go_wrong_together() -> None:
    weather = weather_named("still")
    for source in ("card", "quota"):
        weather.change(source, FaultProfile(Uniform(1, 100)))
    assert spells(weather, "card", 10) != spells(weather, "quota", 10)


def test_a_change_lasts_until_it_is_restored() -> None:
    weather = weather_named("still")
    weather.change("card", FaultProfile(Constant(9)))
    weather.change("quota", FaultProfile(Constant(8)))
    assert (weather.draw("card"), weather.draw("order")) == (CallConditions(0.009), CallConditions(0))
    weather.restore("card")
    assert (weather.draw("card"), weather.draw("quota")) == (CallConditions(0), CallConditions(0.008))
    weather.restore()
    assert weather.draw("quota") == CallConditions(0)


def test_what_a_forecast_leaves_out_is_as_at_the_start() -> None:
    start = FaultProfile(Constant(3), Stragglers(100, 12))
    assert parse_profile("card", {"faults": {"hang": 50}}, start) == FaultProfile(
        Constant(3), Stragglers(100, 12), {Fault.HANG: 50}
    )


FIXED = {"shape": "constant", "ms": 5}
BAD: list[tuple[str, Any, str, str | float | None]] = [
    ("card", [], "weather", "latency"),
    ("card", {"latncy": FIXED}, "weather.latncy", "latency"),
    ("card", {"latency": {"shape": "lognorm", "median_ms": 1, "p99_ms": 2}}, "latency.shape", "lognormal"),
    ("card", {"latency": 5}, "latency.shape", "constant"),
    ("card", {"latency": FIXED | {"ms": -1}}, "latency.ms", 0),
    ("card", {"latency": FIXED | {"ms": 1e9}}, "latency.ms", 3_600_000),
    ("card", {"latency": FIXED | {"ms": "5"}}, "latency.ms", 0),
    ("card", {"latency": FIXED | {"ms": True}}, "latency.ms", 0),
    ("card", {"latency": {"shape": "constant"}}, "latency.ms", 0),
    ("card", {"latency": FIXED | {"high": 1}}, "latency.high", "shape"),
    ("card", {"latency": {"shape": "uniform", "low_ms": 7, "high_ms": 3}}, "latency.high_ms", 7),
    ("card", {"latency": {"shape": "lognormal", "median_ms": 7, "p99_ms": 3}}, "latency.p99_ms", 7),
    ("card", {"latency": {"shape": "lognormal", "median_ms": 0, "p99_ms": 3}}, "latency.median_ms", 0.001),
    ("card", {"stragglers": {"share_bps": 10_001, "factor": 2}}, "stragglers.share_bps", 10_000),
    ("card", {"stragglers": {"share_bps": 1.6, "factor": 2}}, "stragglers.share_bps", 2),
    ("card", {"stragglers": {"share_bps": 1, "factor": 0.5}}, "stragglers.factor", 1),
    ("card", {"faults": {"hnag": 10}}, "faults.hnag", "hang"),
    ("card", {"faults": {"hang": 20_000}}, "faults.hang", 10_000),
    ("card", {"faults": {"hang": 6_000, "reset": 5_000}}, "faults.reset", 4_000),
    ("card", {"faults": {"cut": 1}}, "faults.cut", "reset"),
    ("risk", {"faults": {"pay_frist": 1}}, "faults.pay_frist", "arrives_late"),
    ("engine", {"faults": {"pay_frist": 1}}, "faults.pay_frist", "pay_first"),
    ("engine", {"next": "reset"}, "next", "[]"),
    ("engine", {"next": ["reste"]}, "next.fault", "reset"),
    ("engine", {"next": [{"fault": "reset", "on": "sumbit"}]}, "next.on", "submit"),
    ("engine", {"next": [{"fault": "reset", "times": 2}]}, "next.times", "fault"),
    ("engine", {"next": ["reset"] * 101}, "next", 100),
]


@pytest.mark.parametrize(("source", "told", "field", "nearest"), BAD)
def test_bad_weather_names_the_field_and_the_nearest_that_is_right(
    source: str, told: Any, field: str, nearest: str | float
) -> None:
    with pytest.raises(BadWeather) as bad:
        parse_profile(source, told, STILL)
    assert (bad.value.field, bad.value.nearest) == (field, nearest)


@pytest.mark.parametrize("source", ["channel", "risk"])
def test_nobody_can_be_mistaken_in_an_answer_that_names_nobody(source: str) -> None:
    with pytest.raises(BadWeather, match="wrong_identity"):
        parse_profile(source, {"faults": {"wrong_identity": 1}}, STILL)


def test_a_source_that_is_misspelt_is_told_the_nearest() -> None:
    with pytest.raises(BadWeather, match="the nearest is marketing"):
        parse_source("marketting")
    assert [parse_source(source) for source in SOURCES] == list(SOURCES)


def next_of(weather: Weather, source: str) -> list[str]:
    return [one["fault"] for one in weather.to_json()[source]["next"]]


def test_a_fault_that_waits_befalls_one_call_before_any_dice() -> None:
    weather = weather_named("still")
    weather.change("engine", parse_profile("engine", {"next": ["reset", "hang"]}, STILL))
    assert [weather.conditions("engine", "submit").fault for _ in range(3)] == [Fault.RESET, Fault.HANG, None]
    assert next_of(weather, "engine") == []


def test_a_fault_waits_for_the_call_that_it_is_meant_for() -> None:
    weather = weather_named("still")
    told = {"next": [{"fault": "pay_first", "on": "reverse"}, {"fault": "cut", "on": "submit"}, "garbage"]}
    weather.change("engine", parse_profile("engine", told, STILL))
    assert weather.conditions("engine", "submit").fault is PaymentFault.CUT
    assert weather.conditions("engine", "look_up").fault is Fault.GARBAGE
    assert weather.conditions("engine", "look_up").fault is None
    assert next_of(weather, "engine") == ["pay_first"]
    assert weather.conditions("engine", "reverse").fault is PaymentFault.PAY_FIRST


def test_what_waits_is_gone_when_the_weather_is_restored() -> None:
    weather = weather_named("still")
    weather.change("engine", parse_profile("engine", {"next": ["reset"]}, STILL))
    weather.restore()
    assert weather.conditions("engine", "submit").fault is None


@pytest.mark.parametrize("source", SOURCES)
def test_everything_that_can_befall_a_source_can_be_written_and_read(source: str) -> None:
    faults = {fault.value: 100 for fault in possible_faults(source)}
    told = {"faults": faults, "next": [*faults, *({"fault": "hang", "on": call} for call in CALL_NAMES[source])]}
    forecast = parse_profile(source, told, STILL)
    assert parse_profile(source, msgspec.json.decode(msgspec.json.encode(forecast.to_json())), STILL) == forecast
    assert ("cut" in faults) == (source in ("risk", "engine"))
    assert ("stall" in faults) == (source == "engine")
