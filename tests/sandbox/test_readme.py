"""The tables of the sandbox's README agree with the code."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from cashier.sandbox import CASES, PRESETS, World, create_app, parse_profile, weather_named
from cashier.sandbox.fault_descriptions import DESCRIPTIONS
from cashier.sandbox.risk import THRESHOLDS
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.upstream_endpoints import UpstreamEndpoints

README = (Path(__file__).parents[2] / "cashier/sandbox/README.md").read_text("utf-8")
DECIMALS = {"CNY": 100, "IDR": 100, "JPY": 1, "KWD": 1_000}


def section(heading: str) -> str:
    return README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str, columns: int) -> list[tuple[str, ...]]:
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines() if "|" in line]
    return [row for row in cells if len(row) == columns and not row[0].startswith("-")]


def test_the_cases_are_those_of_the_code() -> None:
    documented = rows(section("Cases"), 3)[1:]
    assert documented == [(f"`{name}`", f"`{case.request['order_id']}`", case.sentence) for name, case in CASES.items()]


def test_the_presets_are_those_of_the_code() -> None:
    names = [row[0] for row in rows(section("Weather").partition("| fault |")[0], 3)[1:]]
    assert re.findall(r"\w+", " ".join(names)) == list(PRESETS)


def test_the_faults_are_those_of_the_code() -> None:
    documented = rows(section("Weather").partition("| fault |")[2], 3)
    assert [(fault, effect) for fault, _, effect in documented] == [
        (f"`{fault.value}`", effect) for fault, effect in DESCRIPTIONS.items()
    ]
    sources = {
        "all": set(SOURCES),
        "all but channel, risk": set(SOURCES) - {"channel", "risk"},
        "risk, engine": {"risk", "engine"},
        "engine": {"engine"},
    }
    for (_, column, _), fault in zip(documented, DESCRIPTIONS, strict=True):
        assert sources[column] == {source for source in SOURCES if fault in SOURCES[source].possible_faults}


def test_the_profile_is_valid() -> None:
    (profile,) = re.findall(r"^```json\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    start = PRESETS["still"]["engine"]
    assert parse_profile("engine", msgspec.json.decode(profile), start) != start


def test_the_risk_thresholds_are_those_of_the_code() -> None:
    header, *limits = rows(section("Risk"), 5)
    documented = zip(header[1:], *([int(cell.replace(",", "")) for cell in row[1:]] for row in limits), strict=True)
    assert {currency: (start, ceiling) for currency, start, ceiling in documented} == {
        currency: (start // DECIMALS[currency], ceiling // DECIMALS[currency])
        for currency, (start, ceiling) in THRESHOLDS.items()
    }


async def test_every_endpoint_of_the_sandbox_itself_is_documented() -> None:
    world, weather = World(), weather_named("still")
    upstreams = {(route.method, route.path) for route in UpstreamEndpoints(world, weather).routes()}
    for route in create_app(world, weather).router.routes():
        method, path = route.method, route.resource.canonical if route.resource else ""
        if (method, path) not in upstreams and method not in ("HEAD", "*"):
            assert re.search(rf"`{method} {re.escape(path)}`", README), (method, path)
