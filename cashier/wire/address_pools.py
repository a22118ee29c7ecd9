"""The pools of a source: one per address of each configured URL, kept up to date with the DNS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Protocol

from cashier.wire.address_parser import UpstreamAddress
from cashier.wire.host_pool import HostPool
from cashier.wire.load_balancing import LoadBalancer
from cashier.wire.resolver import OnResolution, Resolution, ResolvedAddress, ResolvedName, Resolver, is_literal

# Addresses of one name that a worker uses. Each costs connections, and time in every choice; with
# more, each worker takes its own random part, and keeps it.
MAX_ADDRESSES = 32
# After a failed lookup the next one is not later than this.
MAX_RETRY_S = 5.0

MakePool = Callable[[UpstreamAddress, ResolvedAddress | None], HostPool]
# Takes the new index of each pool by its old one, and the pools that are new.
OnChange = Callable[[dict[int, int], list[HostPool]], None]


class AddressSource(Protocol):
    """Where the addresses of a URL come from instead of a lookup of its name.

    They are looked up every `interval_s`, also while there is no connection. `settings`: what it
    was made from; `way`: in a word.
    """

    @property
    def settings(self) -> object: ...

    @property
    def way(self) -> str: ...

    @property
    def name(self) -> ResolvedName: ...

    @property
    def interval_s(self) -> float: ...

    async def close(self) -> None: ...


class UrlPools:
    """The pools of one configured URL. `name`: None for a literal address and a socket file.

    It is looked up every `interval_s` while it is in use, or always.

    While the name is not resolved there is one pool without a target. It gets the first address, so
    that its calls stay where they are.
    """

    __slots__ = ("address", "always", "applied", "interval_s", "name", "on_resolution", "pools", "refresh_handle")

    on_resolution: OnResolution

    def __init__(self, address: UpstreamAddress, pool: HostPool, interval_s: float) -> None:
        self.address = address
        self.name: ResolvedName | None = None
        self.interval_s = interval_s
        self.always = False
        self.applied: tuple[ResolvedAddress, ...] = ()
        self.pools = [pool]
        self.refresh_handle: asyncio.TimerHandle | None = None

    @property
    def in_use(self) -> bool:
        return any(pool.size for pool in self.pools)


class AddressPools:
    """`live`: the pools that calls may use; `draining`: those of addresses that are gone.

    `live` is never empty, and stays the same list. The index of a pool in it is its
    `address_index`. `sole`: its only pool, if it has only one; else `unproven` are those whose last
    connect failed. A name is looked up again every `resolve_s` while it is in use. `discovery`:
    where the addresses of the only URL come from; looked up from `start` on (`started`).
    """

    def __init__(
        self,
        addresses: Sequence[UpstreamAddress],
        make_pool: MakePool,
        resolver: Resolver,
        resolve_s: float,
        on_change: OnChange,
        discovery: AddressSource | None = None,
    ) -> None:
        self.live: list[HostPool] = []
        self.draining: list[HostPool] = []
        self.sole: HostPool | None = None
        self._make_pool = make_pool
        self._resolver = resolver
        self._resolve_s = resolve_s
        self._on_change = on_change
        self.unproven: list[HostPool] = []
        self._unproven_mask = 0
        self._random = Random()
        self.started = self._closed = False
        self._seed = self._random.getrandbits(64)
        self._urls = [self._url(address, discovery) for address in addresses]
        self._balancer = LoadBalancer(self.live)
        self._renumber()

    def _url(self, address: UpstreamAddress, discovery: AddressSource | None) -> UrlPools:
        named = address.socket_path is None and not is_literal(address.host)
        target = None if named or address.socket_path is not None else ResolvedAddress(address.host)
        url = UrlPools(address, self._make_pool(address, target), self._resolve_s)
        if named:
            url.on_resolution = partial(self._apply, url)
            self._watch(url, discovery)
        return url

    def _watch(self, url: UrlPools, discovery: AddressSource | None) -> None:
        name = self._resolver.name(url.address.host) if discovery is None else discovery.name
        if url.name is not None:
            url.name.unwatch(url.on_resolution)
        url.name = name
        url.always = discovery is not None
        url.interval_s = self._resolve_s if discovery is None else discovery.interval_s
        name.watch(url.on_resolution)

    @property
    def all(self) -> list[HostPool]:
        return [*self.live, *self.draining]

    def pick(self, now_s: float, avoid: int) -> HostPool:
        """An address whose last connect failed is used only if there is no other."""
        return self.sole or self._balancer.pick(now_s, avoid, self._unproven_mask)

    def record_success(self, pool: HostPool, now_s: float) -> None:
        """A connect succeeded."""
        pool.back_off.record_success()
        if pool.cold:
            pool.cold = False
            pool.latency.restart(now_s)
        self._set_proven(pool, proven=True)

    def record_failure(self, pool: HostPool, now_s: float) -> None:
        """A connect failed."""
        pool.back_off.record_failure(now_s)
        pool.cold = True
        self._set_proven(pool, proven=False)

    def record_call(self, pool: HostPool, took_s: float, now_s: float, *, failed: bool) -> None:
        """See `LoadBalancer.record`."""
        self._balancer.record(pool, took_s, now_s, failed=failed)

    def _set_proven(self, pool: HostPool, *, proven: bool) -> None:
        if pool.proven is not proven:
            pool.proven = proven
            self._mark_unproven()

    def _mark_unproven(self) -> None:
        self.unproven = [pool for pool in self.live if not pool.proven] if self.sole is None else []
        self._unproven_mask = sum(1 << pool.address_index for pool in self.unproven)

    # Names

    def start(self) -> None:
        """Look up what is to be looked up always."""
        self.started = True
        for url in self._urls:
            if url.name is not None and url.always:
                self._refresh(url, url.name, url.interval_s)

    def discover(self, discovery: AddressSource | None) -> None:
        """Take the addresses from elsewhere; the present ones stay until others are found there."""
        for url in self._urls:
            if url.refresh_handle is not None:
                url.refresh_handle.cancel()
                url.refresh_handle = None
            self._watch(url, discovery)
            name = url.name
            if name is None or not self.started:
                continue
            if name.resolution is not None:  # of another source
                self._apply(url, name.resolution)
            self._refresh(url, name, url.interval_s)

    async def settle(self, pool: HostPool, timeout_s: float) -> None:
        """Before a connect: make sure that the pool's target is known and not long outdated.

        Raises OSError without a known address. See `ResolvedName.wait`.
        """
        url = next((url for url in self._urls if pool in url.pools), None)
        if url is None or url.name is None:
            return
        name = url.name
        try:
            resolution = await name.wait(url.interval_s, timeout_s)
        finally:
            if url.refresh_handle is None:
                self._schedule(url, name)
        if not pool.resolved:  # another source had looked the name up already
            self._apply(url, resolution)

    def _schedule(self, url: UrlPools, name: ResolvedName) -> None:
        """Look the name up again in time, sooner if it lives shorter or the last lookup failed.

        With jitter: workers that started together must not ask together for ever.
        """
        if url.refresh_handle is not None:
            url.refresh_handle.cancel()
        if self._closed or name is not url.name:
            return
        ttl_s = None if name.resolution is None else name.resolution.ttl_s
        wait_s = url.interval_s if ttl_s is None else min(url.interval_s, max(1.0, ttl_s))
        if name.failing:
            wait_s = min(wait_s, MAX_RETRY_S)
        wait_s *= self._random.uniform(0.9, 1.0)
        url.refresh_handle = asyncio.get_running_loop().call_later(wait_s, self._refresh, url, name, wait_s)

    def _refresh(self, url: UrlPools, name: ResolvedName, waited_s: float) -> None:
        url.refresh_handle = None
        if not (url.in_use or url.always):
            return  # the next connect starts it again
        # Another source with the same name may just have looked it up.
        lookup = None if name.fresh(waited_s / 2) else name.refresh()
        if lookup is None:
            self._schedule(url, name)
        else:
            lookup.add_done_callback(lambda _lookup: self._schedule(url, name))

    def _apply(self, url: UrlPools, resolution: Resolution) -> None:
        """Open pools for new addresses, and retire those of addresses that are gone."""
        if resolution.addresses == url.applied:
            return
        url.applied = resolution.addresses
        before = list(self.live)
        wanted = {target.location: target for target in self._part_of(resolution.addresses)}
        in_use = url.in_use
        first = url.pools[0].target is None
        known = set() if first else {pool.target.location for pool in url.pools if pool.target}
        new = [target for location, target in wanted.items() if location not in known]
        if first:
            url.pools[0].target = new.pop(0)
        gone = [pool for pool in url.pools if pool.target and pool.target.location not in wanted]
        opened = [self._make_pool(url.address, target) for target in new]
        for pool in url.pools:
            if pool.target and pool not in gone:  # its weight may be another
                pool.target = wanted[pool.target.location]
        if not (first or gone or opened):
            self._balancer.update()
            return
        for pool in opened:
            pool.proven = not in_use
            pool.cold = not first
        url.pools = [pool for pool in url.pools if pool not in gone] + opened
        self.draining += [pool for pool in gone if pool.size]
        self._renumber()
        for pool in gone:
            pool.retire()
        moved = {index: pool.address_index for index, pool in enumerate(before)}
        self._on_change(moved, opened if in_use else [])

    def _part_of(self, addresses: tuple[ResolvedAddress, ...]) -> list[ResolvedAddress]:
        """At most `MAX_ADDRESSES`, in random order, so that workers do not begin with the same."""
        return sorted(addresses, key=lambda address: (address.priority, hash((self._seed, address.location))))[
            :MAX_ADDRESSES
        ]

    def _renumber(self) -> None:
        self.live[:] = [pool for url in self._urls for pool in url.pools]
        self.sole = self.live[0] if len(self.live) == 1 else None
        for index, pool in enumerate(self.live):
            pool.address_index = index
            pool.balanced = self.sole is None
        self._balancer.update()
        self._mark_unproven()

    def drained(self, pool: HostPool) -> None:
        """The pool lost its last connection."""
        if pool in self.draining:
            self.draining.remove(pool)

    def close(self) -> None:
        self._closed = True
        for url in self._urls:
            if url.refresh_handle is not None:
                url.refresh_handle.cancel()
            if url.name is not None:
                url.name.unwatch(url.on_resolution)
