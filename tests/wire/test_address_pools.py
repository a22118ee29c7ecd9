"""The pools of a source follow the addresses of its names. No sockets; virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.wire.address_parser import UpstreamAddress, parse_addresses
from cashier.wire.address_pools import MAX_ADDRESSES, AddressPools, AddressSource
from cashier.wire.host_pool import RETIRED, HostPool
from cashier.wire.resolver import Resolution, ResolvedAddress, ResolvedName, Resolver
from cashier.wire.response_parser import ResponseBounds
from tests.wire.scripted_names import Names, resolution

FAILED = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def make_pool(address: UpstreamAddress, target: ResolvedAddress | None) -> HostPool:
    return HostPool(0, address, ResponseBounds(2048, 20, 4096), None, target)


class Rig:
    """The pools of some URLs, with a record of the changes."""

    def __init__(self, names: Names | Resolver, *urls: str, discovery: AddressSource | None = None) -> None:
        self.changes: list[tuple[dict[int, int], list[HostPool]]] = []
        resolver = names.resolver if isinstance(names, Names) else names
        self.pools = AddressPools(parse_addresses(urls), make_pool, resolver, 30, self.changed, discovery)

    def changed(self, moved: dict[int, int], opened: list[HostPool]) -> None:
        self.changes.append((moved, opened))

    @property
    def names(self) -> list[str]:
        return [pool.name for pool in self.pools.live]

    @property
    def ips(self) -> set[str]:
        return {pool.target.ip for pool in self.pools.live if pool.target is not None}

    async def connect(self, index: int = 0) -> None:
        """As a client does before a connect; the connection stays open."""
        pool = self.pools.live[index]
        pool.connecting = 1
        await self.pools.settle(pool, 1.0)


@contextlib.asynccontextmanager
async def rig(names: Names | Resolver, *urls: str, discovery: AddressSource | None = None) -> AsyncIterator[Rig]:
    made = Rig(names, *urls, discovery=discovery)
    yield made
    made.pools.close()


@pytest.mark.looptime
@pytest.mark.parametrize("url", ["http://127.0.0.1:9100", "https://[::1]", "http://[fe80::1%25lo]", "unix:/run/s"])
async def test_a_literal_address_and_a_socket_file_are_never_looked_up(url: str) -> None:
    names = Names()
    async with rig(names, url) as made:
        await made.connect()
        await asyncio.sleep(1000)
        assert made.names == [url]
        assert made.pools.sole is made.pools.live[0]
    assert not names.started


@pytest.mark.looptime
async def test_every_address_of_a_name_gets_a_pool_and_keeps_the_urls_label() -> None:
    names = Names(card=resolution("10.0.0.1", "10.0.0.2", "fd00::1"))
    async with rig(names, "http://card:9100", "http://10.1.0.1") as made:
        unresolved = made.pools.live[0]
        assert made.names == ["http://card:9100", "http://10.1.0.1"]
        await made.connect()
        assert sorted(made.names[:3]) == [
            "http://card:9100 (10.0.0.1)", "http://card:9100 (10.0.0.2)", "http://card:9100 (fd00::1)",
        ]  # fmt: skip
        assert made.names[3] == "http://10.1.0.1"
        assert made.pools.live[0] is unresolved
        (moved, opened) = made.changes[0]
        assert moved == {0: 0, 1: 3}
        assert opened == made.pools.live[1:3]


@pytest.mark.looptime
async def test_a_name_with_one_address_is_as_cheap_as_a_literal() -> None:
    names = Names(card=resolution("10.0.0.1"))
    async with rig(names, "http://card") as made:
        await made.connect()
        assert made.pools.sole is made.pools.live[0]
        names.answers["card"] = resolution("10.0.0.2")
        await asyncio.sleep(31)
        assert made.names == ["http://card (10.0.0.2)"]
        assert made.pools.sole is made.pools.live[0]
        assert made.pools.pick(0.0, 0b1) is made.pools.sole


@pytest.mark.looptime
async def test_a_name_in_use_is_looked_up_every_thirty_seconds() -> None:
    names = Names(card=resolution("10.0.0.1"))
    async with rig(names, "http://card") as made:
        await made.connect()
        await asyncio.sleep(3000)
        assert 100 <= names.started["card"] <= 3000 / 27 + 1
        made.pools.live[0].connecting = 0
        await asyncio.sleep(31)
        unused = names.started["card"]
        await asyncio.sleep(3000)
        assert names.started["card"] == unused
        names.answers["card"] = resolution("10.0.0.2")
        await made.connect()
        assert made.ips == {"10.0.0.2"}


@pytest.mark.looptime
async def test_sources_with_the_same_name_share_its_lookups() -> None:
    names = Names(core=resolution("10.0.0.1", "10.0.0.2"))
    async with contextlib.AsyncExitStack() as stack:
        rigs = [await stack.enter_async_context(rig(names, f"http://core:{9100 + n}/v{n}")) for n in range(8)]
        await asyncio.gather(*(made.connect() for made in rigs))
        assert names.started == {"core": 1}
        await asyncio.sleep(600)
        assert names.started["core"] <= 2 * 600 / 27
        names.answers["core"] = resolution("10.0.0.3")
        await asyncio.sleep(61)
        assert all(made.ips == {"10.0.0.3"} for made in rigs)


@pytest.mark.looptime
async def test_a_time_to_live_shortens_the_interval() -> None:
    names = Names(card=resolution("10.0.0.1", ttl_s=5), quick=resolution("10.0.0.1", ttl_s=0))
    async with rig(names, "http://card", "http://quick") as made:
        await made.connect(0)
        await made.connect(1)
        await asyncio.sleep(100)
        assert 100 / 5 <= names.started["card"] <= 100 / 4.5 + 1
        assert 100 <= names.started["quick"] <= 100 / 0.9 + 1


@pytest.mark.looptime
async def test_addresses_are_found_soon_after_an_outage_of_the_name_service() -> None:
    names = Names(card=resolution("10.0.0.1"))
    async with rig(names, "http://card") as made:
        await made.connect()
        names.answers["card"] = FAILED
        await asyncio.sleep(300)
        assert made.ips == {"10.0.0.1"}
        names.answers["card"] = resolution("10.0.0.2")
        await asyncio.sleep(10)
        assert made.ips == {"10.0.0.2"}


@pytest.mark.looptime
async def test_of_hundreds_of_addresses_a_worker_uses_a_stable_part() -> None:
    ips = [f"10.0.{n // 250}.{n % 250}" for n in range(400)]
    names = Names(card=resolution(*ips))
    async with rig(names, "http://card") as made, rig(names, "http://card") as other:
        await made.connect()
        await other.connect()
        part = made.ips
        assert len(part) == MAX_ADDRESSES
        assert other.ips != part  # another worker, another part
        gone = next(iter(part))
        names.answers["card"] = resolution(*reversed([ip for ip in ips if ip != gone]))
        await asyncio.sleep(61)
        assert len(made.ips) == MAX_ADDRESSES
        assert part - made.ips == {gone}


@pytest.mark.looptime
async def test_a_port_of_the_name_service_is_used_and_shown() -> None:
    """As SRV records have them."""

    async def look_up(_host: str) -> Resolution:
        return Resolution((ResolvedAddress("10.0.0.1", 31_001), ResolvedAddress("10.0.0.1", 31_002)))

    async with rig(Resolver(look_up), "http://card") as made:
        await made.connect()
        assert sorted(made.names) == ["http://card (10.0.0.1 port 31001)", "http://card (10.0.0.1 port 31002)"]


@pytest.mark.looptime
async def test_an_address_that_fails_is_used_last_until_it_connects() -> None:
    names = Names(card=resolution("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    async with rig(names, "http://card") as made:
        await made.connect()
        for pool in made.pools.live:
            made.pools.record_success(pool, 0.0)
        bad, *good = made.pools.live
        bad.connecting = 0
        made.pools.record_failure(bad, 0.0)
        assert {made.pools.pick(100.0, 0) for _ in range(9)} == set(good)
        assert made.pools.pick(100.0, 0b110) is bad
        assert made.pools.unproven == [bad]
        for pool in good:
            made.pools.record_failure(pool, 0.0)
        assert {made.pools.pick(100.0, 0) for _ in range(9)} == {bad, *good}
        made.pools.record_success(good[0], 0.0)
        assert {made.pools.pick(100.0, 0) for _ in range(9)} == {good[0]}


@pytest.mark.looptime
async def test_a_new_address_is_not_used_before_it_has_connected() -> None:
    names = Names(card=resolution("10.0.0.1"))
    async with rig(names, "http://card") as made:
        await made.connect()
        old = made.pools.live[0]
        names.answers["card"] = resolution("10.0.0.1", "10.0.0.2")
        await asyncio.sleep(31)
        (new,) = [pool for pool in made.pools.live if pool is not old]
        assert made.changes[-1][1] == [new]
        old.connecting = 0
        assert {made.pools.pick(100.0, 0) for _ in range(6)} == {old}
        made.pools.record_success(new, 0.0)
        assert {made.pools.pick(100.0, 0) for _ in range(6)} == {old, new}


class Discovered:
    """An `AddressSource`."""

    settings: object = None
    way = "scripted"

    def __init__(self, names: Names, interval_s: float) -> None:
        self.name = ResolvedName("card", names.look_up)
        self.interval_s = interval_s

    async def close(self) -> None:
        self.name.cancel()


@pytest.mark.looptime
async def test_discovered_addresses_are_followed_also_without_a_connection() -> None:
    names = Names(card=resolution("10.0.0.1", "10.0.0.2"))
    async with rig(Names(), "http://card", discovery=Discovered(names, 10)) as made:
        made.pools.start()
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert made.ips == {"10.0.0.1", "10.0.0.2"}
        assert all(pool.proven and not pool.cold for pool in made.pools.live)  # all are new together
        names.answers["card"] = resolution("10.0.0.2", "10.0.0.3")
        await asyncio.sleep(10)
        assert made.ips == {"10.0.0.2", "10.0.0.3"}
        await asyncio.sleep(1000)
        assert 100 <= names.started["card"] <= 1010 / 9 + 2
        assert len(made.changes) == 2  # identical lists change nothing


@pytest.mark.looptime
async def test_another_rank_of_an_address_moves_no_connection() -> None:
    names = Names(card=Resolution((ResolvedAddress("10.0.0.1"), ResolvedAddress("10.0.0.2", weight=3))))
    async with rig(names, "http://card") as made:
        await made.connect()
        for pool in made.pools.live:
            made.pools.record_success(pool, 0.0)
        before, changes = list(made.pools.live), len(made.changes)
        names.answers["card"] = Resolution((ResolvedAddress("10.0.0.1"), ResolvedAddress("10.0.0.2", priority=1)))
        await asyncio.sleep(31)
        assert made.pools.live == before
        assert len(made.changes) == changes
        used = {made.pools.pick(0.0, 0).target for _ in range(9)}
        assert used == {ResolvedAddress("10.0.0.1")}


ips = st.lists(
    st.sampled_from([f"10.0.0.{n}" for n in range(6)] + ["::1", "fe80::1%2"]), min_size=1, max_size=8
)  # with duplicates


@given(st.lists(st.tuples(st.sampled_from(["card", "quota"]), ips, st.integers(0, 255)), min_size=1, max_size=12))
def test_pools_follow_any_sequence_of_answers(steps: list[tuple[str, list[str], int]]) -> None:
    """The last number: which pools have connections, one bit each."""
    names = Names()
    made = Rig(names, "http://card", "http://10.9.9.9", "http://quota")
    expected: dict[str, set[str]] = {}
    for host, answer, connected in steps:
        before = list(made.pools.live)
        for pool in before:
            pool.connecting = connected >> pool.address_index & 1
        made.changes.clear()
        for on_resolution in names.resolver.name(host)._watchers:
            on_resolution(Resolution(tuple(dict.fromkeys(resolution(*answer).addresses))))
        expected[host] = set(answer)
        check(made, expected, before)


def check(made: Rig, expected: dict[str, set[str]], before: list[HostPool]) -> None:
    live = made.pools.live
    assert [pool.address_index for pool in live] == list(range(len(live)))
    assert len(set(made.names)) == len(live)
    for host in ("card", "quota"):
        targets = [pool.target for pool in live if pool.address.host == host]
        assert expected.get(host, {None}) == {target and target.ip for target in targets}
    gone = [pool for pool in before if pool not in live]
    assert all(pool.address_index == RETIRED for pool in [*gone, *made.pools.draining])
    assert set(made.pools.draining) >= {pool for pool in gone if pool.size}
    for moved, opened in made.changes:
        assert moved == {index: pool.address_index for index, pool in enumerate(before)}
        assert set(opened) <= set(live) - set(before)
    assert made.changes or live == before
    everything = (1 << len(live)) - 1
    for avoid in (0, 1, everything ^ 1, everything):
        picked = made.pools.pick(1e9, avoid)
        assert picked in live
        assert avoid == everything or not avoid >> picked.address_index & 1
