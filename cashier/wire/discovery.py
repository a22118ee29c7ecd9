"""Discovery: where the addresses of a source come from, instead of a lookup of its name.

All ways are lookups on the resolver's hook. `ResolvedName` keeps the last list while a lookup
fails, hangs or finds nothing; `AddressPools` follows the list.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct
from msgspec.structs import replace

from cashier.source_errors import SourceError
from cashier.wire.address_parser import UpstreamAddress, is_visible_ascii, parse_address
from cashier.wire.awaited_call import send_and_wait
from cashier.wire.discovery_lists import ListFormat, parse_list
from cashier.wire.file_watch import FileWatch
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.request_writer import check_headers
from cashier.wire.resolver import Lookup, LookupThreads, Resolution, ResolvedAddress, ResolvedName, Resolver, is_literal
from cashier.wire.transport import CallHeaders, Request

# A lookup that takes longer has failed.
LOOKUP_S = 5.0
MAX_LIST_BYTES = 4 << 20
MAX_TOKEN_BYTES = 64 << 10
MAX_LISTED_NAMES = 64
# Reads that hang at the same time, as of a network file system.
MAX_FILE_READS = 4
WAYS = ("dns", "srv", "file", "http")
_CALL_HEADERS = CallHeaders("discovery")


class DiscoverSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`discover`: one of `dns` and `srv`, names; `file`, a path; and `http`, a URL.

    `format`: of a file or HTTP list. `interval_s`: the longest time between two lookups; a time to
    live of DNS records shortens it. `nameserver`: `ip` or `ip:port`; None: those of the system.
    `token_file`: sent to `http` as a bearer token, read for each request. `ca_file`: of `http`.
    """

    dns: str | None = None
    srv: str | None = None
    file: str | None = None
    http: str | None = None
    format: ListFormat = "list"
    interval_s: Annotated[float, Meta(ge=1, le=3600)] = 10.0
    nameserver: str | None = None
    token_file: str | None = None
    ca_file: str | None = None

    @property
    def way(self) -> str:
        """Its key; empty without exactly one."""
        ways = [way for way in WAYS if getattr(self, way) is not None]
        return ways[0] if len(ways) == 1 else ""


def discover_faults(settings: DiscoverSettings, urls: Sequence[str], transport: str) -> Iterator[str]:
    """One sentence for each contradiction."""
    if transport != "http1":
        yield f'discover needs transport = "http1", but this source has "{transport}"'
    elif len(urls) != 1:
        yield "discover finds the addresses of one url; give one, with the name that Host and TLS use"
    else:
        yield from _url_faults(urls[0])
    way = settings.way
    if not way:
        yield f"discover takes one of {', '.join(WAYS)}"
        return
    if not getattr(settings, way):
        yield f"discover.{way} is empty"
    for key, ways in (
        ("format", ("file", "http")),
        ("nameserver", ("dns", "srv")),
        ("token_file", ("http",)),
        ("ca_file", ("http",)),
    ):
        if getattr(settings, key) not in (None, "list") and way not in ways:
            yield f"discover.{key} has no effect with discover.{way}; remove it"
    if settings.http is not None:
        try:
            _list_request(settings.http)
        except ValueError as fault:
            yield f"discover.http: {fault}"
    if settings.nameserver is not None:
        try:
            _name_server(settings.nameserver)
        except ValueError:
            yield "discover.nameserver is an IP address, with a port if it is not 53, such as 127.0.0.1:8600"
    if way in ("dns", "srv") and find_spec("dns") is None:
        yield f"discover.{way} needs dnspython: pip install 'cashier[dns]'"


def _url_faults(url: str) -> Iterator[str]:
    try:
        address = parse_address(url)
    except ValueError:
        return  # named as a fault of the url
    if address.socket_path is not None or is_literal(address.host):
        yield "discover finds the addresses of a name, but the url has none; give it the name that Host and TLS use"


class Discovery:
    """The name of one source with the addresses that discovery finds for it.

    `url` has the name. `resolver`: for the names in lists, and of the service that has one. Raises
    ValueError for a file that cannot be used.
    """

    def __init__(self, settings: DiscoverSettings, url: UpstreamAddress, resolver: Resolver) -> None:
        self.settings = settings
        self.way = settings.way
        self.interval_s = settings.interval_s
        self._http: HttpList | None = None
        self._look_up = _bounded(self._lookup(settings, url, resolver))
        self.name = ResolvedName(url.host, self._look_up)

    def _lookup(self, settings: DiscoverSettings, url: UpstreamAddress, resolver: Resolver) -> Lookup:
        if settings.dns is not None or settings.srv is not None:
            from cashier.wire.discovery_dns import (  # noqa: PLC0415 — an extra, and 80 ms
                AddressRecords,
                NameServer,
                ServiceRecords,
            )

            server = NameServer(None if settings.nameserver is None else _name_server(settings.nameserver))
            if settings.srv is not None:
                return ServiceRecords(settings.srv, server)
            return AddressRecords(settings.dns or "", server)
        if settings.file is not None:
            read = LookupThreads(partial(_read_file, MAX_LIST_BYTES), most=MAX_FILE_READS)
            body: Callable[[], Awaitable[bytes]] = partial(read, settings.file)
        else:
            self._http = HttpList(settings, resolver)
            body = self._http.body

        parsed: tuple[bytes | None, list[ResolvedAddress]] = None, []

        async def look_up(_host: str) -> Resolution:
            nonlocal parsed
            try:
                listed = await body()
                if listed != parsed[0]:  # most are: a long one takes milliseconds to decode
                    parsed = listed, parse_list(settings.format, listed, url)
            except ValueError as fault:
                raise OSError(errno.EBADMSG, f"the list cannot be used: {fault}") from None
            except RecursionError:
                raise OSError(errno.EBADMSG, "the list cannot be used: it is nested too deeply") from None
            return Resolution(await _with_ips(parsed[1], resolver))

        return look_up

    async def look_up(self) -> Resolution | OSError:
        """Look up once, beside the name: for a person who checks a configuration."""
        try:
            return (await self._look_up(self.name.host)).without_repeats()
        except OSError as error:
            return error

    async def close(self) -> None:
        self.name.cancel()
        if self._http is not None:
            await self._http.close()

    def __repr__(self) -> str:
        return f"<Discovery by {self.way} {self.name!r}>"


def _bounded(look_up: Lookup) -> Lookup:
    async def look_up_in_time(host: str) -> Resolution:
        try:
            async with asyncio.timeout(LOOKUP_S):
                return await look_up(host)
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, error.strerror or f"no list within {LOOKUP_S:g} s") from None

    return look_up_in_time


class HttpList:
    """A list that a service has, asked for again with its `ETag`."""

    def __init__(self, settings: DiscoverSettings, resolver: Resolver) -> None:
        origin, self._target = _list_request(settings.http or "")
        bounds = Http1Settings(connections=2, ahead=0, max_body_bytes=MAX_LIST_BYTES, ca_file=settings.ca_file)
        files = FileWatch()
        self._client = Http1Client([origin], bounds, resolver, keep_headers=True, files=files)
        self._ca_file = settings.ca_file
        self._token_file = settings.token_file
        self._read_token = LookupThreads(partial(_read_file, MAX_TOKEN_BYTES), most=MAX_FILE_READS)
        self._check_ca_file = LookupThreads(lambda _ca_file: files.check(), most=MAX_FILE_READS)
        self._etag = ""
        self._body = b""

    async def body(self) -> bytes:
        """Raises OSError."""
        if self._ca_file is not None:
            await self._check_ca_file(self._ca_file)
        request = Request(self._target, headers=await self._headers())
        response = await send_and_wait(self._client, request, _CALL_HEADERS, round(LOOKUP_S * 1000))
        if isinstance(response, SourceError):
            raise OSError(errno.EIO, response.detail)
        if response.status == 304 and self._etag:
            return self._body
        if response.status != 200:
            raise OSError(errno.EIO, f"the list is answered with status {response.status}")
        etag = response.headers.get("ETag", "")
        self._etag, self._body = (etag, response.body) if is_visible_ascii(etag) else ("", b"")
        return response.body

    async def _headers(self) -> tuple[tuple[str, str], ...]:
        headers = [("If-None-Match", self._etag)] if self._etag else []
        if self._token_file is not None:
            try:
                token = (await self._read_token(self._token_file)).decode("latin-1").strip()
                headers.append(("Authorization", f"Bearer {token}"))
                check_headers(tuple(headers))
            except OSError as error:
                raise OSError(error.errno, f"token_file: {error.strerror}") from None
            except ValueError as fault:
                raise OSError(errno.EBADMSG, f"token_file: {fault}") from None
        return tuple(headers)

    async def close(self) -> None:
        await self._client.close()


def _read_file(most_bytes: int, path: str) -> bytes:
    """Blocks. Raises OSError."""
    with Path(path).open("rb") as file:
        body = file.read(most_bytes + 1)
    if len(body) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes} bytes")
    return body


async def _with_ips(found: Sequence[ResolvedAddress], resolver: Resolver) -> tuple[ResolvedAddress, ...]:
    """Replace each name by its addresses. One that does not resolve is left out, if others remain.

    Raises OSError.
    """
    names = list(dict.fromkeys(address.ip for address in found if not is_literal(address.ip)))
    if not names:
        return tuple(found)
    if len(names) > MAX_LISTED_NAMES:
        raise OSError(errno.E2BIG, f"the list has more than {MAX_LISTED_NAMES} names")
    looked_up = await asyncio.gather(*(resolver.ips(name) for name in names), return_exceptions=True)
    ips: dict[str, tuple[str, ...]] = {}
    for name, outcome in zip(names, looked_up, strict=True):
        if isinstance(outcome, tuple):
            ips[name] = outcome
        elif not isinstance(outcome, OSError):
            raise outcome
    usable = [address for address in found if address.ip not in names or address.ip in ips]
    if not usable:
        raise OSError(errno.ENOENT, "no name of the list resolves")
    return tuple(replace(address, ip=ip) for address in usable for ip in ips.get(address.ip, (address.ip,)))


def _list_request(url: str) -> tuple[str, str]:
    """Its origin and target. Raises ValueError."""
    parts = urlsplit(url)
    if parts.fragment or not is_visible_ascii(url):
        raise ValueError("a URL is printable ASCII without spaces and fragment")
    origin = parse_address(f"{parts.scheme}://{parts.netloc}")
    if origin.socket_path is not None:
        raise ValueError("a URL begins with http:// or https://")
    return origin.name, f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"


def _name_server(text: str) -> tuple[str, int]:
    """Raises ValueError."""
    try:
        return str(ip_address(text)), 53
    except ValueError:
        address = parse_address(f"http://{text}")
        if not is_literal(address.host) or address.prefix:
            raise
        return address.host, address.port
