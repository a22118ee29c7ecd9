"""Lists of addresses as files and services have them: JSON to addresses, one function a format.

All are checked whole: half a file, a page of a list or an error in the shape of one is no list. An
entry that may not be used (unhealthy, disabled, not ready) is left out. Unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from cashier.wire.address_parser import UpstreamAddress
from cashier.wire.resolver import ResolvedAddress

# More is no list of the addresses of one service.
MAX_LISTED = 4096
Port = Annotated[int, Meta(ge=1, le=65_535)]
Weight = Annotated[float, Meta(ge=0, le=1e9)]
ListFormat = Literal["list", "consul", "kubernetes", "nacos"]

ParseList = Callable[[bytes, UpstreamAddress], list[ResolvedAddress]]
"""Takes a body and the url whose addresses it has. A host may be a name. Raises ValueError."""


def parse_list(list_format: ListFormat, body: bytes, url: UpstreamAddress) -> list[ResolvedAddress]:
    """The usable addresses; none is no error. Raises ValueError, whose text has no values."""
    found = FORMATS[list_format](body, url)
    if len(found) > MAX_LISTED:
        raise ValueError(f"more than {MAX_LISTED} addresses")
    for address in found:
        if not address.ip or not address.ip.isascii() or not address.ip.isprintable() or set(address.ip) & set(" /@"):
            raise ValueError("an address is neither an IP address nor a name")
    return found


# The plain list: `["10.0.0.1:8080", "[fd00::1]", {"address": "10.0.0.2", "weight": 2}]`


class _Listed(Struct, frozen=True):
    address: str
    port: Port | None = None
    weight: Weight = 1.0
    priority: Annotated[int, Meta(ge=0, le=65_535)] = 0


def plain(body: bytes, url: UpstreamAddress) -> list[ResolvedAddress]:
    """An array of `host`, `host:port`, or objects. An address without a port has that of `url`."""
    return [
        ResolvedAddress(*_host_and_port(entry))
        if isinstance(entry, str)
        else ResolvedAddress(entry.address, entry.port, entry.priority, entry.weight)
        for entry in msgspec.json.decode(body, type=list[str | _Listed])
        if isinstance(entry, str) or entry.weight
    ]


def _host_and_port(text: str) -> tuple[str, int | None]:
    try:
        return str(ip_address(text)), None  # IPv6 without brackets has colons too
    except ValueError:
        pass
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), None
    if not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError("an address has a port that is no number from 1 to 65535")
    return host.strip("[]"), int(port)


# Consul: `GET /v1/health/service/NAME?passing=1`


class _ConsulWeights(Struct, frozen=True, rename="pascal"):
    passing: Weight = 1.0
    warning: Weight = 1.0


class _ConsulService(Struct, frozen=True, rename="pascal"):
    port: Annotated[int, Meta(ge=0, le=65_535)]
    address: str = ""
    weights: _ConsulWeights | None = None


class _ConsulNode(Struct, frozen=True, rename="pascal"):
    address: str


class _ConsulCheck(Struct, frozen=True, rename="pascal"):
    status: str


class _ConsulEntry(Struct, frozen=True, rename="pascal"):
    node: _ConsulNode
    service: _ConsulService
    checks: list[_ConsulCheck] = field(default_factory=list)


def consul(body: bytes, url: UpstreamAddress) -> list[ResolvedAddress]:
    """Entries without a critical check, or one of maintenance, by the weight of their state."""
    found = []
    for entry in msgspec.json.decode(body, type=list[_ConsulEntry]):
        states = {check.status for check in entry.checks}
        if not states <= {"passing", "warning"}:
            continue
        weights = entry.service.weights or _ConsulWeights()
        weight = weights.warning if "warning" in states else weights.passing
        if weight:
            host = entry.service.address or entry.node.address
            found.append(ResolvedAddress(host, entry.service.port or None, weight=weight))
    return found


# Nacos: `GET /nacos/v3/client/ns/instance/list?serviceName=NAME`, and those of v1 and v2


class _NacosInstance(Struct, frozen=True):
    ip: str
    port: Port
    weight: Weight = 1.0
    healthy: bool = True
    enabled: bool = True


class _NacosService(Struct, frozen=True):
    hosts: list[_NacosInstance]


class _NacosResult(Struct, frozen=True):
    data: list[_NacosInstance] | _NacosService | None
    code: int


def nacos(body: bytes, url: UpstreamAddress) -> list[ResolvedAddress]:
    """`hosts` (v1), `data.hosts` (v2) or `data` (v3). An error may come with status 200."""
    answer: Any = msgspec.json.decode(body)
    if isinstance(answer, Mapping) and "code" in answer:
        result = msgspec.convert(answer, _NacosResult)
        if result.code != 0 or result.data is None:
            raise ValueError(f"it answers with the code {result.code}")
        instances = result.data.hosts if isinstance(result.data, _NacosService) else result.data
    else:
        instances = msgspec.convert(answer, _NacosService).hosts
    return [
        ResolvedAddress(instance.ip, instance.port, weight=instance.weight)
        for instance in instances
        if instance.healthy and instance.enabled and instance.weight
    ]


# Kubernetes: `GET /apis/discovery.k8s.io/v1/namespaces/NS/endpointslices?labelSelector=…`


class _SliceConditions(Struct, frozen=True):
    ready: bool | None = None


class _SliceEndpoint(Struct, frozen=True):
    addresses: Annotated[list[str], Meta(min_length=1)]
    conditions: _SliceConditions | None = None


class _SlicePort(Struct, frozen=True):
    port: Port | None = None
    name: str | None = None
    protocol: str | None = None


class _Slice(Struct, frozen=True, rename={"address_type": "addressType"}):
    address_type: str
    endpoints: list[_SliceEndpoint] | None = None
    ports: list[_SlicePort] | None = None


class _ListMeta(Struct, frozen=True, rename={"more": "continue"}):
    more: str = ""


class _SliceList(Struct, frozen=True):
    kind: Literal["EndpointSliceList"]
    items: list[_Slice]
    metadata: _ListMeta = _ListMeta()


def kubernetes(body: bytes, url: UpstreamAddress) -> list[ResolvedAddress]:
    """The ready endpoints of an EndpointSliceList; absent `ready` means ready, as its schema says.

    Of several ports the one of `url` is used, or the one with the name of its scheme. A service
    with both families has each endpoint twice, so IPv6 is used only if there is nothing else.
    """
    listed = msgspec.json.decode(body, type=_SliceList)
    if listed.metadata.more:
        raise ValueError("it is one page of several; ask without limit")
    families = {part.address_type for part in listed.items if part.endpoints}
    wanted = next((family for family in ("IPv4", "IPv6") if family in families), None)
    found = []
    for part in listed.items:
        ready = [
            endpoint
            for endpoint in part.endpoints or ()
            if endpoint.conditions is None or endpoint.conditions.ready is not False
        ]
        if ready and part.address_type == wanted:
            port = _slice_port(part.ports or (), url)
            found += [ResolvedAddress(endpoint.addresses[0], port) for endpoint in ready]
    return found


def _slice_port(ports: Sequence[_SlicePort], url: UpstreamAddress) -> int | None:
    tcp = [port for port in ports if port.protocol in (None, "TCP") and port.port]
    if len(tcp) <= 1:
        return tcp[0].port if tcp else None
    scheme = "https" if url.tls else "http"
    by_number, by_name = {port.port for port in tcp}, {port.name: port.port for port in tcp}
    if url.port in by_number:
        return url.port
    if scheme not in by_name:
        raise ValueError(f"it has several ports: give the url one of them, or name one {scheme}")
    return by_name[scheme]


FORMATS: Mapping[ListFormat, ParseList] = {"list": plain, "consul": consul, "kubernetes": kubernetes, "nacos": nacos}
