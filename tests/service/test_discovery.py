"""A service whose sources are discovered: calls, reloads, metrics and what operators see."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cashier import Cashier
from cashier.ops.history import Window
from cashier.ops.overview import DiscoveryOverview, Health, SourceOverview
from cashier.ops.source_overview import source_overviews
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.settings.loader import configuration
from cashier.settings.schema import Configuration, ConfigurationError
from tests.wire.client_side import until
from tests.wire.scripted_dns import name_service
from tests.wire.scripted_upstream import tcp_upstream


def config(**discover: Any) -> Configuration:
    settings: dict[str, Any] = {"discover": discover} if discover else {}
    return configuration({"sources": {"card": {"url": "http://card.internal", **settings}}}, "a test")


def a_list(file: Path, *addresses: str) -> str:
    file.write_text(json.dumps(addresses), "utf-8")
    return str(file)


@contextlib.asynccontextmanager
async def service(of: Configuration) -> AsyncIterator[Cashier]:
    sources = {name: call for name, call in LocalUpstreams(World(), weather_named("still")).items() if name != "card"}
    async with Cashier(sources=sources, config=of) as cashier:
        yield cashier


def addresses(cashier: Cashier) -> set[str]:
    return {endpoint.name for endpoint in cashier.pipelines["card"].guard.endpoints}


def values(cashier: Cashier) -> dict[str, float]:
    """Of the metrics of addresses, as a scrape reads them."""
    lines = cashier.metrics.render().splitlines()
    found = [line.rpartition(" ") for line in lines if 'source="card"' in line and line.startswith("cashier_")]
    return {name.partition("{")[0]: float(value) for name, _, value in found}


@pytest.mark.moves("cashier_source_endpoints", "cashier_discovery_age_seconds", "cashier_discovery_changes_total")
async def test_discovered_addresses_are_endpoints_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "card.json"
    async with service(config(file=str(file))) as cashier:
        transport = cashier._parts.network["card"]
        assert values(cashier)["cashier_source_endpoints"] == 0
        monkeypatch.setattr("cashier.telemetry.discovery_gauges.time.monotonic", lambda: 1e9)
        assert values(cashier)["cashier_discovery_age_seconds"] > 1e6  # nothing was found so far
        monkeypatch.undo()
        a_list(file, "127.0.0.2:1", "127.0.0.3:1")
        await again(cashier)
        assert addresses(cashier) == {f"http://card.internal (127.0.0.{n} port 1)" for n in (2, 3)}
        before = values(cashier)
        assert before["cashier_source_endpoints"] == transport.endpoints == 2
        assert before["cashier_discovery_age_seconds"] <= 5
        assert before["cashier_discovery_changes_total"] == 0
        a_list(file, "127.0.0.3:1")
        await again(cashier)
        after = values(cashier)
        assert (after["cashier_source_endpoints"], after["cashier_discovery_changes_total"]) == (1, 1)
        assert addresses(cashier) == {"http://card.internal (127.0.0.3 port 1)"}


async def again(cashier: Cashier) -> None:
    """The next lookup now."""
    name = cashier._parts.network["card"].discovery.name  # type: ignore[attr-defined]
    name._back_off.record_success()
    lookup = name.refresh()
    with contextlib.suppress(OSError):
        await lookup


async def test_a_reload_takes_the_addresses_from_elsewhere_and_back(tmp_path: Path) -> None:
    one = a_list(tmp_path / "one.json", "127.0.0.2:1")
    two = a_list(tmp_path / "two.json", "127.0.0.3:1")
    first = config(file=one)
    async with service(first) as cashier:
        await until(lambda: addresses(cashier) == {"http://card.internal (127.0.0.2 port 1)"})
        assert cashier.reload(config(file=two)) == ()
        await until(lambda: addresses(cashier) == {"http://card.internal (127.0.0.3 port 1)"})
        assert cashier.reload(config(file=two, interval_s=5.0)) == ()
        assert cashier.reload(config()) == ()  # a lookup of the name, which fails
        await asyncio.sleep(0)
        assert addresses(cashier) == {"http://card.internal (127.0.0.3 port 1)"}
        assert cashier.reload(first) == ()
        await until(lambda: addresses(cashier) == {"http://card.internal (127.0.0.2 port 1)"})


async def test_a_reload_with_a_file_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    first = config(file=a_list(tmp_path / "one.json", "127.0.0.2:1"))
    async with service(first) as cashier:
        await until(lambda: len(addresses(cashier)) == 1)
        missing = str(tmp_path / "missing.pem")
        with pytest.raises(ConfigurationError, match="discover"):
            cashier.reload(config(http="https://consul.internal/list", ca_file=missing))
        assert cashier.config is first


def seen(cashier: Cashier) -> SourceOverview:
    """The source as the console shows it."""
    (card,) = [
        source for source in source_overviews(Window({}, {}, 1.0), [cashier.state()], {}) if source.name == "card"
    ]
    return card


async def test_operators_see_the_age_of_a_list_and_why_there_is_no_new_one(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    async with service(config(file=a_list(file, "127.0.0.2:1"))) as cashier:
        await until(lambda: len(addresses(cashier)) == cashier._parts.network["card"].endpoints)
        card = seen(cashier)
        assert card.discovery is not None
        assert card.discovery == DiscoveryOverview("file", card.discovery.age_s, 0, 0, 1, "")
        assert card.health is Health.IDLE
        file.write_text("[", "utf-8")
        await again(cashier)
        card = seen(cashier)
        assert card.discovery is not None
        assert (card.discovery.failing, card.discovery.workers) == (1, 1)
        assert card.health is Health.WARN
        assert "Discovery by file finds nothing: the list cannot be used" in card.finding
        assert all(source.discovery is None for source in cashier.state().sources if source.name != "card")


async def test_srv_records_give_a_service_its_addresses_and_ports() -> None:
    async with name_service() as names, tcp_upstream() as upstream:
        names.zone = {
            ("_http._tcp.card.internal", "SRV"): [f"0 0 {upstream.port} pod.internal."],
            ("pod.internal", "A"): ["127.0.0.1"],
        }
        of = config(srv="_http._tcp.card.internal", nameserver=f"127.0.0.1:{names.port}")
        async with service(of) as cashier:
            await until(lambda: addresses(cashier) == {f"http://card.internal (127.0.0.1 port {upstream.port})"})
