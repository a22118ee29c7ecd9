"""Discovery: DNS, SRV, files and HTTP lists on the resolver's hook. Real sockets and files."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.rcode
import dns.rdatatype
import dns.resolver
import pytest
import trustme
from dns.name import Name

from cashier.wire.address_parser import parse_address
from cashier.wire.discovery import MAX_LIST_BYTES, DiscoverSettings, Discovery, discover_faults
from cashier.wire.discovery_dns import AddressRecords, NameServer
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.resolver import Resolution, ResolvedAddress, Resolver
from tests.wire.client_side import PATIENT, no_leaks, send, until
from tests.wire.scripted_dns import NameService, name_service
from tests.wire.scripted_names import Names, resolution
from tests.wire.scripted_upstream import Peer, Upstream, tcp_upstream
from tests.wire.test_names import HELLO, A, B, ip_of, serving, upstreams

CARD = parse_address("http://card.internal")


@contextlib.asynccontextmanager
async def discovery(resolver: Resolver | None = None, **settings: Any) -> AsyncIterator[Discovery]:
    found = Discovery(DiscoverSettings(**settings), CARD, resolver or Resolver())
    try:
        yield found
    finally:
        await found.close()


async def look_up(found: Discovery) -> Resolution:
    """Once, as the pools do each interval. Raises the lookup's OSError."""
    lookup = found.name.refresh()
    assert lookup is not None
    await asyncio.wait((lookup,))
    found.name._back_off.record_success()
    return lookup.result()


async def ips(found: Discovery) -> set[str]:
    return {address.ip for address in (await look_up(found)).addresses}


# DNS


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameService]:
    monkeypatch.setattr("cashier.wire.discovery_dns._OTHER_FAMILY_S", 2.0)  # the machine may be busy
    async with name_service() as service:
        yield service


async def test_a_and_aaaa_records_with_the_shorter_time_to_live(names: NameService) -> None:
    names.zone = {("card.example", "A"): ["10.0.0.1", "10.0.0.2"], ("card.example", "AAAA"): ["fd00::1"]}
    names.ttl_s = 7
    async with discovery(dns="card.example", nameserver=f"127.0.0.1:{names.port}") as found:
        assert await ips(found) == {"10.0.0.1", "10.0.0.2", "fd00::1"}
        assert found.name.resolution is not None
        assert found.name.resolution.ttl_s == 7


async def test_a_server_that_never_answers_for_ipv6_delays_nothing_much(
    names: NameService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cashier.wire.discovery_dns._OTHER_FAMILY_S", 0.02)
    names.zone = {("card.example", "A"): ["10.0.0.1"]}
    names.silent = {"AAAA"}
    async with discovery(dns="card.example", nameserver=f"127.0.0.1:{names.port}") as found:
        async with asyncio.timeout(2):
            assert await ips(found) == {"10.0.0.1"}


async def test_a_query_that_fails_after_it_was_given_up_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancellation came too late to end it."""
    monkeypatch.setattr("cashier.wire.discovery_dns._OTHER_FAMILY_S", 0.0)
    given_up = asyncio.Event()

    class LateServer(NameServer):
        async def query(self, name: str | Name, kind: dns.rdatatype.RdataType) -> dns.resolver.Answer:
            if kind == dns.rdatatype.A:
                return await super().query(name, kind)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                given_up.set()
            raise dns.resolver.NoAnswer

    logged: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))
    async with name_service() as names:
        names.zone = {("card.example", "A"): ["10.0.0.1"]}
        found = await AddressRecords("card.example.", LateServer(("127.0.0.1", names.port)))()
    assert [address.ip for address in found.addresses] == ["10.0.0.1"]
    await given_up.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert logged == []


async def test_a_family_that_fails_keeps_its_last_addresses(
    names: NameService, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = "cashier.wire.discovery_dns._OTHER_FAMILY_S"
    names.zone = {("card.example", "A"): ["10.0.0.1"], ("card.example", "AAAA"): ["fd00::1"]}
    async with discovery(dns="card.example", nameserver=f"127.0.0.1:{names.port}") as found:
        assert await ips(found) == {"10.0.0.1", "fd00::1"}
        names.silent = {"AAAA"}
        monkeypatch.setattr(patience, 0.02)
        names.zone["card.example", "A"] = ["10.0.0.2"]
        assert await ips(found) == {"10.0.0.2", "fd00::1"}
        names.silent = set()
        monkeypatch.setattr(patience, 2.0)
        del names.zone["card.example", "AAAA"]
        assert await ips(found) == {"10.0.0.2"}


@pytest.mark.parametrize("way", ["dns", "srv"])
@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_a_name_service_that_finds_nothing_or_fails_leaves_the_last_list(
    names: NameService, way: str, rcode: dns.rcode.Rcode
) -> None:
    names.zone = {
        ("card.example", "A"): ["10.0.0.1"],
        ("card.example", "SRV"): ["0 0 8080 one.example."],
        ("one.example", "A"): ["10.0.0.1"],
    }
    settings: dict[str, Any] = {way: "card.example", "nameserver": f"127.0.0.1:{names.port}"}
    async with discovery(**settings) as found:
        known = await look_up(found)
        names.rcode = rcode
        with pytest.raises(OSError):  # noqa: PT011 — of several kinds
            await look_up(found)
        assert found.name.resolution == known
        assert found.name.failure is not None
        names.rcode = None
        assert await look_up(found) == known
        assert found.name.changes == 0


async def test_service_records_with_ports_priorities_and_weights(names: NameService) -> None:
    names.zone = {
        ("_card._tcp.example", "SRV"): ["10 3 8081 one.example.", "10 1 8082 two.example.", "20 0 8083 far.example."],
        ("one.example", "A"): ["10.0.0.1"],
        ("two.example", "A"): ["10.0.0.2"],
        ("far.example", "A"): ["10.9.0.1"],
    }
    async with discovery(srv="_card._tcp.example", nameserver=f"127.0.0.1:{names.port}") as found:
        expected = (
            ResolvedAddress("10.0.0.1", 8081, 10, 3),
            ResolvedAddress("10.0.0.2", 8082, 10, 1),
            ResolvedAddress("10.9.0.1", 8083, 20, 0.01),
        )
        assert await look_up(found) == Resolution(expected, 30)
        looked_up = names.asked["A"]
        assert looked_up == 3
        names.additional = ["one.example", "two.example", "far.example"]  # as CoreDNS and Consul answer
        assert await look_up(found) == Resolution(expected, 30)
        assert names.asked["A"] == looked_up


async def test_weights_of_nothing_are_equal_and_a_target_shares_its_weight(names: NameService) -> None:
    names.zone = {
        ("_card._tcp.example", "SRV"): ["0 0 80 one.example."],
        ("one.example", "A"): ["10.0.0.1", "10.0.0.2"],
    }
    async with discovery(srv="_card._tcp.example", nameserver=f"127.0.0.1:{names.port}") as found:
        assert {address.weight for address in (await look_up(found)).addresses} == {1}
        names.zone["_card._tcp.example", "SRV"] = ["0 4 80 one.example."]
        assert {address.weight for address in (await look_up(found)).addresses} == {2}


async def test_a_target_that_fails_keeps_its_last_addresses_and_one_that_is_gone_goes(names: NameService) -> None:
    names.zone = {
        ("_card._tcp.example", "SRV"): ["0 0 80 one.example.", "0 0 80 two.example."],
        ("one.example", "A"): ["10.0.0.1"],
        ("two.example", "A"): ["10.0.0.2"],
    }
    async with discovery(srv="_card._tcp.example", nameserver=f"127.0.0.1:{names.port}") as found:
        assert await ips(found) == {"10.0.0.1", "10.0.0.2"}
        del names.zone["two.example", "A"]
        assert await ips(found) == {"10.0.0.1"}
        names.zone["_card._tcp.example", "SRV"] = ["0 0 0 ."]  # decidedly not available
        with pytest.raises(OSError, match="no addresses"):
            await look_up(found)
        assert found.name.resolution is not None


# Files


async def test_a_file_is_followed_and_half_of_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    file.write_text('["10.0.0.1:80", "10.0.0.2:80"]', "utf-8")
    async with discovery(file=str(file)) as found:
        assert await ips(found) == {"10.0.0.1", "10.0.0.2"}
        for half in ('["10.0.0.1:80", "10.', "", "[]", "\0" * 30):
            file.write_text(half, "utf-8")
            with pytest.raises(OSError):  # noqa: PT011
                await look_up(found)
        new = tmp_path / "new"
        new.write_text('["10.0.0.3:80"]', "utf-8")
        new.replace(file)
        assert await ips(found) == {"10.0.0.3"}
        file.unlink()
        with pytest.raises(FileNotFoundError):
            await look_up(found)
        assert found.name.resolution is not None
        assert found.name.resolution.addresses == (ResolvedAddress("10.0.0.3", 80),)
        assert found.name.changes == 1


async def test_a_file_that_is_too_large_or_hangs_is_a_failed_lookup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "card.json"
    file.write_bytes(b" " * (MAX_LIST_BYTES + 1))
    async with discovery(file=str(file)) as found:
        with pytest.raises(OSError, match="more than"):
            await look_up(found)
    monkeypatch.setattr("cashier.wire.discovery.LOOKUP_S", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with discovery(file=str(pipe)) as found:
        for _ in range(8):
            with pytest.raises(OSError, match=r"no list within|too many lookups"):
                await look_up(found)
    for _ in range(4):  # let the threads end
        os.close(os.open(pipe, os.O_RDWR))


async def test_names_in_a_list_are_looked_up_and_one_that_fails_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    file.write_text('["one.internal:81", "gone.internal:81", "10.0.0.9"]', "utf-8")
    names = Names()
    names.answers["one.internal"] = resolution("10.0.0.1", "10.0.0.2")
    names.answers["gone.internal"] = OSError(2, "no such name")
    async with discovery(names.resolver, file=str(file)) as found:
        assert (await look_up(found)).addresses == (
            ResolvedAddress("10.0.0.1", 81), ResolvedAddress("10.0.0.2", 81), ResolvedAddress("10.0.0.9"),
        )  # fmt: skip
        file.write_text('["gone.internal:81"]', "utf-8")
        with pytest.raises(OSError, match="no name of the list resolves"):
            await look_up(found)


# HTTP lists


async def answered(
    found: Discovery, upstream: Upstream, response: bytes
) -> tuple[dict[str, str], Resolution | OSError]:
    """The headers of one poll, and what comes of this answer to it."""

    async def serve() -> dict[str, str]:
        peer = await (upstream.peer_with_request() if upstream.peers else upstream.peer())
        request = await peer.read_request()
        peer.write(response)
        return request.headers

    headers, outcome = await asyncio.gather(serve(), look_up(found), return_exceptions=True)
    assert isinstance(headers, dict)
    assert isinstance(outcome, Resolution | OSError)
    return headers, outcome


def http_answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


async def test_an_http_list_is_asked_for_with_its_etag_and_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n", "utf-8")
    async with no_leaks(), tcp_upstream() as upstream:
        url = f"http://127.0.0.1:{upstream.port}/v1/list?passing=1"
        async with discovery(http=url, token_file=str(token)) as found:
            headers, outcome = await answered(found, upstream, http_answer(b'["10.0.0.1"]', ETag='"one"'))
            assert headers["authorization"] == "Bearer first"
            assert "if-none-match" not in headers
            token.write_text("second", "utf-8")
            headers, same = await answered(found, upstream, http_answer(b"", "304 Not Modified"))
            assert (headers["authorization"], headers["if-none-match"]) == ("Bearer second", '"one"')
            assert same == outcome == Resolution((ResolvedAddress("10.0.0.1"),))
            for wrong in ("500 Internal Server Error", "401 Unauthorized", "302 Found", "204 No Content"):
                _, failed = await answered(found, upstream, http_answer(b"", wrong))
                assert isinstance(failed, OSError)
                assert "second" not in str(failed)
            _, later = await answered(found, upstream, http_answer(b'["10.0.0.2"]'))
            assert later == Resolution((ResolvedAddress("10.0.0.2"),))
            assert found.name.changes == 1


@pytest.mark.parametrize("content", [None, b"", b" \n", b"a\nb", b"\xff", b"x" * 70_000])
async def test_a_token_file_that_cannot_be_used_is_named_and_not_the_list(
    tmp_path: Path, content: bytes | None
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    async with discovery(http="http://127.0.0.1:1/list", token_file=str(token)) as found:
        with pytest.raises(OSError, match="token_file: "):
            await look_up(found)


@pytest.mark.parametrize("first", [b"", b"[]"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the list cannot be used"),
        (b"[" * 100_000, "the list cannot be used"),
        (b'[{"address": "10.0.0.1", "more": ' + b"[" * 100_000, "the list cannot be used"),
        (b'[{"address": "10.0.0.1", "more": ' + b'{"a":' * 100_000, "the list cannot be used"),
        (b"\xef\xbb\xbf[]", "the list cannot be used"),
        (b'["\xff"]', "the list cannot be used"),
        (b"[]", "the name has no addresses"),
    ],
    ids=lambda value: value[:16].decode("latin-1") if isinstance(value, bytes) else "",
)
async def test_a_file_that_is_no_list_is_told_from_an_empty_list(
    tmp_path: Path, first: bytes, body: bytes, says: str
) -> None:
    file = tmp_path / "card.json"
    async with discovery(file=str(file)) as found:
        for content in (first, body):
            file.write_bytes(content)
            failed = await found.look_up()
        assert isinstance(failed, OSError)
        assert says in str(failed)
        file.write_bytes(b'["10.0.0.1"]')
        assert await found.look_up() == Resolution((ResolvedAddress("10.0.0.1"),))


async def test_a_list_is_trusted_by_the_authorities_that_its_file_has_now(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    ca_file = tmp_path / "ca.pem"
    old.cert_pem.write_to_path(str(ca_file))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    new.issue_cert("127.0.0.1").configure_cert(tls)
    async with tcp_upstream(tls) as upstream:
        url = f"https://127.0.0.1:{upstream.port}/list"
        async with discovery(http=url, ca_file=str(ca_file)) as found:
            assert isinstance(await found.look_up(), OSError)
            new.cert_pem.write_to_path(str(ca_file))
            _, outcome = await answered(found, upstream, http_answer(b'["10.0.0.1"]'))
            assert outcome == Resolution((ResolvedAddress("10.0.0.1"),))


async def test_a_token_that_cannot_be_sent_is_a_failed_lookup_that_does_not_name_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sec\r\nret: 1", "utf-8")
    async with discovery(http="http://127.0.0.1:1/list", token_file=str(token)) as found:
        with pytest.raises(OSError, match="Authorization") as failed:
            await look_up(found)
        assert "sec" not in str(failed.value)


# A client with discovery


async def write(file: Path, *ips: str) -> None:
    await asyncio.to_thread(file.write_text, str([*ips]).replace("'", '"'), "utf-8")


@contextlib.asynccontextmanager
async def client(port: int, found: Discovery) -> AsyncIterator[Http1Client]:
    transport = Http1Client([f"http://card.internal:{port}"], Http1Settings(ahead=1, **PATIENT), discovery=found)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


async def used_by(transport: Http1Client, calls: int = 6) -> set[str]:
    used = set()
    for _ in range(calls):
        call = send(transport)
        used.add(ip_of(transport, call))
        assert await call.outcome() == HELLO
    return used


async def test_calls_follow_the_list(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    await write(file, A)
    async with upstreams(A, B) as served, serving(*served):
        found = Discovery(DiscoverSettings(file=str(file)), CARD, Resolver())
        async with client(served[0].port, found) as transport:
            assert await used_by(transport) == {A}
            sole = transport._sole_pool
            assert sole is not None
            await look_up(found)
            assert transport._sole_pool is sole  # an identical list changes nothing
            await write(file, B)
            await look_up(found)
            await until(lambda: ip_of_sole(transport) == B)
            assert await used_by(transport) == {B}
            await until(lambda: not transport._hosts.draining)


def ip_of_sole(transport: Http1Client) -> str | None:
    pool = transport._sole_pool
    return None if pool is None or pool.target is None else pool.target.ip


async def test_another_way_of_discovery_is_taken_over_at_run_time(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    await write(one, A)
    first, second = (Discovery(DiscoverSettings(file=str(file)), CARD, Resolver()) for file in (one, other))
    async with upstreams(A, B) as served, serving(*served), client(served[0].port, first) as transport:
        assert await used_by(transport) == {A}
        transport.discover(second)
        await until(lambda: second.name.failing)
        assert await used_by(transport) == {A}  # nothing is found there yet
        await write(other, B)
        second.name._back_off.record_success()
        await look_up(second)
        assert await used_by(transport) == {B}


async def test_the_certificate_and_host_are_those_of_the_configured_name(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    async with upstreams(A) as (upstream,):
        await write(file, f"{A}:{upstream.port}")
        found = Discovery(DiscoverSettings(file=str(file)), CARD, Resolver())
        async with client(80, found) as transport:
            call = send(transport)
            peer: Peer = await upstream.peer_with_request()
            assert (await peer.read_request()).headers["host"] == "card.internal"
            call.abandon()


# Settings


@pytest.mark.parametrize(
    ("settings", "url", "fault"),
    [
        ({}, "http://card", "one of dns, srv, file, http"),
        ({"file": "a", "dns": "b"}, "http://card", "one of dns, srv, file, http"),
        ({"file": ""}, "http://card", "file is empty"),
        ({"file": "a"}, "http://10.0.0.1", "the url has none"),
        ({"file": "a"}, "unix:/run/card.sock", "the url has none"),
        ({"file": "a", "token_file": "t"}, "http://card", "token_file has no effect"),
        ({"dns": "card", "format": "consul"}, "http://card", "format has no effect"),
        ({"dns": "card", "nameserver": "dns.internal"}, "http://card", "nameserver is an IP address"),
        ({"http": "ftp://consul/list"}, "http://card", "discover.http: "),
        ({"http": "http://user:secret@consul/list"}, "http://card", "discover.http: "),
    ],
)
def test_a_contradiction_is_named_with_its_key(settings: dict[str, Any], url: str, fault: str) -> None:
    (found,) = discover_faults(DiscoverSettings(**settings), (url,), "http1")
    assert fault in found
    assert "secret" not in found


def test_discovery_needs_the_built_in_client_and_one_url() -> None:
    settings = DiscoverSettings(file="a")
    assert list(discover_faults(settings, ("http://card",), "http1")) == []
    assert "http1" in next(discover_faults(settings, ("http://card",), "aiohttp"))
    assert "one url" in next(discover_faults(settings, ("http://a", "http://b"), "http1"))


def test_dns_without_its_library_is_a_fault_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.wire.discovery.find_spec", lambda _: None)
    (fault,) = discover_faults(DiscoverSettings(dns="card"), ("http://card",), "http1")
    assert "pip install 'cashier[dns]'" in fault
