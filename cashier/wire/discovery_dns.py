"""Addresses by DNS with their time to live: A and AAAA, or SRV. Needs dnspython, an extra.

The system's resolver tells no time to live and knows no SRV. Imported only if it is configured.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
from math import inf

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
from dns.name import Name
from dns.rdtypes.IN.SRV import SRV

from cashier.wire.resolver import Resolution, ResolvedAddress

# Of one query, over all servers and repetitions.
_QUERY_S = 3.0
# How long the answer for one family is waited for after that for the other: some servers never
# answer queries for IPv6 (RFC 8305 waits 50 ms, on a connect's path).
_OTHER_FAMILY_S = 0.25
# Targets of SRV records that are looked up, and how many at a time.
_MAX_TARGETS = 256
_LOOKUPS_AT_ONCE = 8
_FAMILIES = (dns.rdatatype.A, dns.rdatatype.AAAA)
_NOTHING = (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer)


class NameServer:
    """Sends queries to `server`, an address with its port, or as `/etc/resolv.conf` says."""

    def __init__(self, server: tuple[str, int] | None = None) -> None:
        self._server = server

    async def query(self, name: str | Name, kind: dns.rdatatype.RdataType) -> dns.resolver.Answer:
        """Raises DNSException. The file is read each time, so that its changes hold."""
        resolver = dns.asyncresolver.Resolver(configure=self._server is None)
        if self._server is not None:
            resolver.nameservers = [self._server[0]]
            resolver.port = self._server[1]
        return await resolver.resolve(name, kind, lifetime=_QUERY_S, search=True)


class AddressRecords:
    """A `Lookup` of A and AAAA records. Of a family that fails, the last known ones stay."""

    def __init__(self, name: str | Name, server: NameServer, port: int | None = None) -> None:
        self._name = name
        self._server = server
        self._known: dict[dns.rdatatype.RdataType, tuple[str, ...]] = {}

    async def __call__(self, _host: str = "") -> Resolution:
        """Raises OSError."""
        queries = {asyncio.create_task(self._server.query(self._name, kind)): kind for kind in _FAMILIES}
        try:
            await asyncio.wait(queries, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(queries, timeout=_OTHER_FAMILY_S if self._answered(queries) else None)
        finally:
            for query in queries:
                query.cancel()
                query.add_done_callback(_seen)
        failures = []
        ttl_s = inf
        for query, kind in queries.items():
            error = None if not query.done() or query.cancelled() else query.exception()
            if not query.done() or query.cancelled():
                failures.append("no answer in time")
            elif error is None:
                self._known[kind] = tuple(record.address for record in query.result())
                ttl_s = min(ttl_s, query.result().chaining_result.minimum_ttl)
            elif isinstance(error, _NOTHING):
                self._known[kind] = ()
            elif isinstance(error, dns.exception.DNSException | OSError):
                failures.append(_described(error))
            else:
                raise error
        ips = [ip for known in self._known.values() for ip in known]
        if len(failures) == len(queries) or (failures and not ips):
            raise OSError(errno.ENOENT, failures[0])
        return Resolution(tuple(map(ResolvedAddress, ips)), None if ttl_s == inf else ttl_s)

    @staticmethod
    def _answered(queries: Iterable[asyncio.Task[dns.resolver.Answer]]) -> bool:
        """One has addresses."""
        return any(query.done() and query.exception() is None for query in queries)


def _seen(query: asyncio.Task[dns.resolver.Answer]) -> None:
    """Take its error, which asyncio would otherwise log.

    A query may fail after it was given up: `asyncio.wait_for` of Python 3.11 ignores a cancellation
    that comes together with the answer.
    """
    if not query.cancelled():
        query.exception()


class ServiceRecords:
    """A `Lookup` of SRV records (RFC 2782) and of the addresses of their targets."""

    def __init__(self, name: str, server: NameServer) -> None:
        self._name = name
        self._server = server
        self._targets: dict[Name, AddressRecords] = {}
        self._known: dict[Name, Resolution] = {}

    async def __call__(self, _host: str) -> Resolution:
        """Raises OSError. A target that fails keeps its last known addresses."""
        try:
            answer = await self._server.query(self._name, dns.rdatatype.SRV)
        except _NOTHING:
            return Resolution(())
        except dns.exception.DNSException as error:
            raise OSError(errno.ENOENT, _described(error)) from error
        records: list[SRV] = sorted(answer, key=lambda record: (record.priority, record.target, record.port))
        records = records[:_MAX_TARGETS]
        targets = list(dict.fromkeys(record.target for record in records))
        if targets == [dns.name.root]:  # the service is decidedly not available
            return Resolution(())
        glue = _glue(answer)
        at_once = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        failures = await asyncio.gather(*(self._resolve(target, glue, at_once) for target in targets))
        self._targets = {target: self._targets[target] for target in targets if target in self._targets}
        self._known = {target: self._known[target] for target in targets if target in self._known}
        if not self._known:
            raise OSError(errno.ENOENT, next(filter(None, failures), "its targets have no addresses"))
        return self._resolution(records, float(answer.chaining_result.minimum_ttl))

    async def _resolve(self, target: Name, glue: dict[Name, Resolution], at_once: asyncio.Semaphore) -> str | None:
        """Return why not."""
        if target in glue:
            self._known[target] = glue[target]
            return None
        look_up = self._targets.setdefault(target, AddressRecords(target, self._server))
        try:
            async with at_once:
                found = await look_up()
        except OSError as error:
            return error.strerror or str(error)
        if not found.addresses:
            self._known.pop(target, None)
            return "a target has no addresses"
        self._known[target] = found
        return None

    def _resolution(self, records: list[SRV], ttl_s: float) -> Resolution:
        weighted = any(record.weight for record in records)
        addresses = []
        for record in records:
            known = self._known.get(record.target)
            if known is None:
                continue
            ttl_s = min(ttl_s, inf if known.ttl_s is None else known.ttl_s)
            # A weight of 0 beside others is "a very small chance of being selected".
            weight = (record.weight or 0.01) / len(known.addresses) if weighted else 1.0
            addresses += [
                ResolvedAddress(address.ip, record.port, record.priority, weight) for address in known.addresses
            ]
        return Resolution(tuple(addresses), ttl_s)


def _glue(answer: dns.resolver.Answer) -> dict[Name, Resolution]:
    """The addresses that came with the records, as CoreDNS and Consul send them."""
    glue: dict[Name, Resolution] = {}
    for rrset in answer.response.additional:
        if rrset.rdtype in _FAMILIES:
            known = glue.get(rrset.name, Resolution((), float(rrset.ttl)))
            ips = tuple(ResolvedAddress(record.address) for record in rrset)
            glue[rrset.name] = Resolution(known.addresses + ips, min(known.ttl_s or 0.0, float(rrset.ttl)))
    return glue


def _described(error: BaseException) -> str:
    """In one line, without the servers' texts."""
    match error:
        case dns.resolver.LifetimeTimeout():
            return f"no answer from a name server within {_QUERY_S:g} s"
        case dns.resolver.NoNameservers():
            return "no name server could answer"
        case dns.resolver.NoResolverConfiguration():
            return "there is no /etc/resolv.conf"
        case OSError():
            return error.strerror or str(error)
    return f"a name server fails: {type(error).__name__}"
