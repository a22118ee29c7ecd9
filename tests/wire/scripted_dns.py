"""A name server that the test scripts, on a socket of 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class NameService(asyncio.DatagramProtocol):
    """`zone`: the records by name and type; of a name without any, NXDOMAIN.

    `silent`: the types, such as `AAAA`, that get no answer. `rcode`: of every answer, if set.
    `additional`: names whose addresses are sent along. `asked`: counts queries by type.
    """

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], list[str]] = {}
        self.ttl_s = 30
        self.silent: set[str] = set()
        self.rcode: dns.rcode.Rcode | None = None
        self.additional: list[str] = []
        self.asked: Counter[str] = Counter()
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name, kind = str(question.name).rstrip("."), dns.rdatatype.to_text(question.rdtype)
        self.asked[kind] += 1
        if kind in self.silent:
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if self.rcode is not None:
            answer.set_rcode(self.rcode)
        elif not any(known == name for known, _ in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            answer.answer += self._records(name, kind)
            answer.additional += [
                record
                for other in self.additional
                for family in ("A", "AAAA")
                for record in self._records(other, family)
            ]
        self._transport.sendto(answer.to_wire(), addr)

    def _records(self, name: str, kind: str) -> list[dns.rrset.RRset]:
        values = self.zone.get((name, kind))
        return [dns.rrset.from_text(f"{name}.", self.ttl_s, "IN", kind, *values)] if values else []


@contextlib.asynccontextmanager
async def name_service() -> AsyncIterator[NameService]:
    service = NameService()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: service, local_addr=("127.0.0.1", 0)
    )
    service.port = transport.get_extra_info("sockname")[1]
    try:
        yield service
    finally:
        transport.close()
