"""Name resolution: one lookup per name at a time, shared, with the last known addresses kept.

The event loop's own resolver runs on few threads that all names share: one name that resolves
slowly delays every other, and the exit of the process too. Here each lookup has a daemon thread of
its own, and an abandoned wait does not abandon the lookup.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from ipaddress import ip_address
from time import monotonic
from typing import Generic, TypeVar

import structlog
from msgspec import Struct

from cashier.wire.call_completion import describe_failure
from cashier.wire.load_balancing import BackOff

# Names come from the configuration, so more lookups at once than this are lookups that never end.
MAX_LOOKUP_THREADS = 128
# How long `ips` waits for the first lookup of a name; a quarter of it once addresses are known.
LOOKUP_S = 1.0

_log = structlog.get_logger("cashier")


class ResolvedAddress(Struct, frozen=True):
    """`ip`: a literal, with its zone if it has one. `port`: None for the port of the URL.

    `weight`, above 0: its share of calls, relative to others of its `priority`. Others than the
    lowest priority number are used if none of that can be (RFC 2782).
    """

    ip: str
    port: int | None = None
    priority: int = 0
    weight: float = 1.0

    @property
    def location(self) -> tuple[str, int | None]:
        """What identifies it: its rank may change."""
        return self.ip, self.port


class Resolution(Struct, frozen=True):
    """The addresses of a name. `ttl_s`: how long they hold, None if the source does not say."""

    addresses: tuple[ResolvedAddress, ...]
    ttl_s: float | None = None

    def without_repeats(self) -> Resolution:
        """The first of each location. Raises OSError if there is none at all."""
        if not self.addresses:
            raise OSError(errno.ENOENT, "the name has no addresses")
        by_location: dict[tuple[str, int | None], ResolvedAddress] = {}
        for address in self.addresses:
            by_location.setdefault(address.location, address)
        return Resolution(tuple(by_location.values()), self.ttl_s)


# Looks one name up. An OSError, or a resolution without addresses, is a failed lookup.
Lookup = Callable[[str], Awaitable[Resolution]]
OnResolution = Callable[[Resolution], None]
T = TypeVar("T")


def _now_s() -> float:
    return asyncio.get_running_loop().time()


class LookupThreads(Generic[T]):
    """Runs a blocking lookup on a daemon thread of its own: exit never waits for it."""

    def __init__(self, look_up: Callable[[str], T], most: int = MAX_LOOKUP_THREADS) -> None:
        self._look_up = look_up
        self._free = threading.BoundedSemaphore(most)

    async def __call__(self, host: str) -> T:
        """Raises OSError. A cancelled wait leaves the thread running."""
        if not self._free.acquire(blocking=False):
            raise OSError(errno.EAGAIN, "too many lookups are in progress")
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()  # a waiter can no longer cancel it
        try:
            threading.Thread(target=self._run, args=(host, outcome), name=f"look up {host}", daemon=True).start()
        except RuntimeError as error:  # the machine has no thread left
            self._free.release()
            raise OSError(errno.EAGAIN, str(error)) from error
        return await asyncio.wrap_future(outcome)

    def _run(self, host: str, outcome: Future[T]) -> None:
        try:
            resolution = self._look_up(host)
        except Exception as error:  # noqa: BLE001 — the waiter raises it
            self._free.release()
            outcome.set_exception(error)
        else:
            self._free.release()
            outcome.set_result(resolution)


def system_addresses(host: str) -> Resolution:
    """Ask the system, so that its hosts file and nsswitch.conf hold. Blocks. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a name that IDNA does not permit
        raise OSError(errno.EINVAL, str(error)) from error
    return Resolution(
        tuple(
            ResolvedAddress(_with_zone(str(address[0]), *address[3:]))
            for family, _, _, _, address in found
            if family in (socket.AF_INET, socket.AF_INET6)
        )
    )


def _with_zone(ip: str, zone: int = 0) -> str:
    return f"{ip}%{zone}" if zone and "%" not in ip else ip


def is_literal(host: str) -> bool:
    """An IPv4 or IPv6 address, which needs no lookup."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class ResolvedName:
    """One name: its last known addresses, and the lookup in progress.

    `resolution` stays while later lookups fail, hang, or find nothing. `changes`: how often the
    addresses became others. `failure`: of the last lookup, in words; None after a success.
    """

    def __init__(self, host: str, look_up: Lookup) -> None:
        self.host = host
        self.resolution: Resolution | None = None
        self._look_up = look_up
        self._lookup: asyncio.Task[Resolution] | None = None
        self._lookup_started_s = 0.0
        self._resolved_s = self._found_s = 0.0
        self.failure: str | None = None
        self.changes = 0
        self._back_off = BackOff()
        self._watchers: list[OnResolution] = []

    def watch(self, on_resolution: OnResolution) -> None:
        """Call back after each successful lookup, before its waiters go on."""
        self._watchers.append(on_resolution)

    def unwatch(self, on_resolution: OnResolution) -> None:
        """The last watcher to leave ends the wait for a lookup; its thread ends by itself."""
        self._watchers.remove(on_resolution)
        if not self._watchers:
            self.cancel()

    def cancel(self) -> None:
        """Wait no longer for the lookup in progress."""
        if self._lookup is not None:
            self._lookup.cancel()

    @property
    def age_s(self) -> float | None:
        """The time since the last successful lookup; None before the first. Needs no loop."""
        return None if self.resolution is None else monotonic() - self._found_s

    def fresh(self, max_age_s: float) -> bool:
        """It was looked up within `max_age_s`, or within its own time to live if that is less."""
        if self.resolution is None:
            return False
        ttl_s = self.resolution.ttl_s
        # A second at least: a time to live of 0 must not become a lookup per connect.
        limit_s = max_age_s if ttl_s is None else min(max_age_s, max(1.0, ttl_s))
        return _now_s() - self._resolved_s < limit_s

    def refresh(self) -> asyncio.Task[Resolution] | None:
        """Start a lookup, or join the one in progress. None just after a failed one."""
        if self._lookup is None and _now_s() >= self._back_off.until_s:
            self._lookup_started_s = _now_s()
            self._lookup = asyncio.get_running_loop().create_task(self._resolve())
            self._lookup.add_done_callback(self._looked_up)
        return self._lookup

    async def wait(self, max_age_s: float, timeout_s: float) -> Resolution:
        """Return the known addresses if they are fresh, else start a lookup or join it.

        Addresses that were fresh lately are returned at once, and so are all known ones while
        lookups fail or hang. After a time without use, a lookup is waited for a quarter of
        `timeout_s`; without any known address, all of it. Raises OSError, such as TimeoutError, if
        there is none.
        """
        if self.resolution is not None and self.fresh(max_age_s):
            return self.resolution
        lookup = self.refresh()
        if lookup is not None:
            patience_s = timeout_s
            if self.resolution is not None:
                outdated = not self.fresh(2 * max_age_s) and not self.failing
                patience_s = self._lookup_started_s + timeout_s / 4 - _now_s() if outdated else 0.0
            if patience_s > 0:
                await asyncio.wait((lookup,), timeout=patience_s)
        if self.resolution is not None:
            return self.resolution
        if self.failure is None:
            raise TimeoutError(errno.ETIMEDOUT, f"the name is not resolved within {timeout_s * 1000:.0f} ms")
        raise OSError(errno.ENOENT, self.failure)

    async def _resolve(self) -> Resolution:
        return (await self._look_up(self.host)).without_repeats()

    def _looked_up(self, lookup: asyncio.Task[Resolution]) -> None:
        """Raise an error other than OSError, which is a bug, for the loop to report."""
        self._lookup = None
        if lookup.cancelled():
            return
        error = lookup.exception()
        if error is not None:
            self._failed(error)
            return
        if self.failure is not None:
            _log.info("a name resolves again", host=self.host)
        self.failure = None
        self._back_off.record_success()
        self._resolved_s = _now_s()
        self._found_s = monotonic()
        resolution = lookup.result()
        if self.resolution is not None and set(self.resolution.addresses) != set(resolution.addresses):
            self.changes += 1
        self.resolution = resolution
        for watcher in self._watchers:
            watcher(resolution)

    def _failed(self, error: BaseException) -> None:
        failure = describe_failure(error)
        if self.failure is None:
            _log.warning(
                "a name does not resolve",
                host=self.host,
                error=failure,
                effect="no connection" if self.resolution is None else "its last known addresses are used",
            )
        self.failure = failure
        self._back_off.record_failure(_now_s())
        if not isinstance(error, OSError):
            raise error

    @property
    def failing(self) -> bool:
        """The last lookup failed."""
        return self.failure is not None

    def __repr__(self) -> str:
        ips = [] if self.resolution is None else [address.ip for address in self.resolution.addresses]
        return f"<{self.host}: {', '.join(ips) or 'not resolved'}{', looked up now' if self._lookup else ''}>"


class Resolver:
    """The names that the transports of one event loop connect to."""

    def __init__(self, look_up: Lookup | None = None) -> None:
        self._look_up = look_up or LookupThreads(system_addresses)
        self._names: dict[str, ResolvedName] = {}

    def name(self, host: str) -> ResolvedName:
        if host not in self._names:
            self._names[host] = ResolvedName(host, self._look_up)
        return self._names[host]

    async def ips(self, host: str) -> tuple[str, ...]:
        """For a client that connects rarely, and then because an address was lost: looked up anew.

        The last known ones if that fails or hangs. Raises OSError if there are none.
        """
        if is_literal(host):
            return (host,)
        resolution = await self.name(host).wait(1.0, LOOKUP_S)
        return tuple(address.ip for address in resolution.addresses)

    def close(self) -> None:
        """Wait no longer for any lookup. Threads that hang end by themselves."""
        for name in self._names.values():
            name.cancel()

    def __repr__(self) -> str:
        return f"<Resolver {' '.join(map(repr, self._names.values()))}>"
