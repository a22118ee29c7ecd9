"""Lists of addresses in the formats of files, Consul, Nacos and Kubernetes."""

from __future__ import annotations

import contextlib
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.wire.address_parser import parse_address
from cashier.wire.discovery_lists import FORMATS, MAX_LISTED, ListFormat, parse_list
from cashier.wire.resolver import ResolvedAddress
from tests.wire import discovery_examples as examples

URL = parse_address("http://card.internal")
FORMAT_NAMES: tuple[ListFormat, ...] = get_args(ListFormat)


def parsed(list_format: ListFormat, body: Any, url: str = "http://card.internal") -> list[ResolvedAddress]:
    return parse_list(list_format, body if isinstance(body, bytes) else json.dumps(body).encode(), parse_address(url))


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("10.0.0.1", ResolvedAddress("10.0.0.1")),
        ("10.0.0.1:8080", ResolvedAddress("10.0.0.1", 8080)),
        ("fd00::1", ResolvedAddress("fd00::1")),
        ("[fd00::1]", ResolvedAddress("fd00::1")),
        ("[fd00::1]:8080", ResolvedAddress("fd00::1", 8080)),
        ("card-1.internal:8080", ResolvedAddress("card-1.internal", 8080)),
        ({"address": "10.0.0.1"}, ResolvedAddress("10.0.0.1")),
        (
            {"address": "10.0.0.1", "port": 81, "weight": 2.5, "priority": 3, "zone": "a"},
            ResolvedAddress("10.0.0.1", 81, 3, 2.5),
        ),
    ],
)
def test_a_plain_list_has_addresses_in_every_usual_form(entry: Any, address: ResolvedAddress) -> None:
    assert parsed("list", [entry]) == [address]


def test_an_address_without_weight_gets_no_calls() -> None:
    assert parsed("list", [{"address": "10.0.0.1", "weight": 0}]) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": []}, [1], [None], [""], [" 10.0.0.1"], ["10.0.0.1:0"], ["10.0.0.1:65536"], ["10.0.0.1:x"],
        ["http://10.0.0.1"], ["a@b"], ["käse"], [{"address": "10.0.0.1", "port": 0}], [{"port": 80}],
        [{"address": "10.0.0.1", "weight": -1}], ["10.0.0.1"] * (MAX_LISTED + 1),
    ],
)  # fmt: skip
def test_a_plain_list_with_something_else_is_refused_as_a_whole(wrong: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — of several kinds
        parsed("list", wrong)


def test_the_documented_answer_of_consul() -> None:
    assert parsed("consul", examples.CONSUL) == [ResolvedAddress("10.1.10.12", 8000, weight=10)]


@pytest.mark.parametrize(
    ("status", "weights"), [("passing", [10]), ("warning", [1]), ("critical", []), ("maintenance", [])]
)
def test_the_state_of_a_consul_instance_decides_its_weight(status: str, weights: list[float]) -> None:
    body = examples.CONSUL.replace(b'check", "Status": "passing"', f'check", "Status": "{status}"'.encode())
    assert [address.weight for address in parsed("consul", body)] == weights


def test_a_consul_service_without_an_address_has_that_of_its_node() -> None:
    body = [{"Node": {"Address": "10.1.10.12"}, "Service": {"Address": "", "Port": 8000}, "Checks": []}]
    assert parsed("consul", body) == [ResolvedAddress("10.1.10.12", 8000)]


@pytest.mark.parametrize(
    ("body", "addresses"),
    [
        (examples.NACOS_V1, [ResolvedAddress("192.168.1.117", 8082)]),
        (examples.NACOS_V2, [ResolvedAddress("192.168.56.1", 8080, weight=2)]),
        (examples.NACOS_V3, [ResolvedAddress("127.0.0.1", 18080)]),
    ],
)
def test_the_answers_of_three_versions_of_nacos(body: bytes, addresses: list[ResolvedAddress]) -> None:
    assert parsed("nacos", body) == addresses


def test_an_error_of_nacos_with_status_200_is_no_list() -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parsed("nacos", examples.NACOS_ERROR)
    with pytest.raises(ValueError, match="code 30000"):
        parsed("nacos", {"code": 30000, "message": "server error", "data": None})


def test_the_endpoint_slices_of_a_live_cluster() -> None:
    assert parsed("kubernetes", examples.KUBERNETES) == [ResolvedAddress("172.18.0.2", 6443)]


def slices(*parts: dict[str, Any], **metadata: str) -> dict[str, Any]:
    return {"kind": "EndpointSliceList", "metadata": metadata, "items": list(parts)}


def part(*ips: str, address_type: str = "IPv4", **conditions: Any) -> dict[str, Any]:
    endpoints = [{"addresses": [ip], "conditions": conditions} for ip in ips]
    return {"addressType": address_type, "endpoints": endpoints, "ports": [{"port": 80, "protocol": "TCP"}]}


def test_only_ready_endpoints_of_all_slices_are_used() -> None:
    """Absent and null mean ready: as the schema says."""
    ready = [part("10.0.0.1", ready=True), part("10.0.0.2"), part("10.0.0.3", ready=None)]
    ending = part("10.0.0.4", ready=False, serving=True, terminating=True)
    found = parsed("kubernetes", slices(*ready, ending, {"addressType": "IPv4", "endpoints": None}))
    assert [address.ip for address in found] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_a_dual_stack_service_has_each_endpoint_once() -> None:
    v4, v6 = part("10.0.0.1"), part("fd00::1", address_type="IPv6")
    assert [address.ip for address in parsed("kubernetes", slices(v6, v4))] == ["10.0.0.1"]
    assert [address.ip for address in parsed("kubernetes", slices(v6))] == ["fd00::1"]


@pytest.mark.parametrize(("url", "port"), [("http://card", 8080), ("http://card:9153", 9153)])
def test_of_several_ports_the_one_of_the_url_or_of_its_scheme_is_used(url: str, port: int) -> None:
    assert [address.port for address in parsed("kubernetes", examples.KUBERNETES_PORTS, url)] == [port]


def test_an_undecided_port_and_a_page_of_a_list_are_refused() -> None:
    with pytest.raises(ValueError, match="several ports"):
        parsed("kubernetes", examples.KUBERNETES_PORTS, "https://card")
    with pytest.raises(ValueError, match="one page"):
        parsed("kubernetes", slices(part("10.0.0.1"), **{"continue": "abc"}))


@pytest.mark.parametrize(
    ("list_format", "body"),
    [
        ("list", b'["10.0.0.1:80", "10.0.0.2:80"]'), ("consul", examples.CONSUL), ("nacos", examples.NACOS_V2),
        ("kubernetes", examples.KUBERNETES),
    ],
)  # fmt: skip
def test_no_beginning_of_a_list_is_a_list(list_format: ListFormat, body: bytes) -> None:
    """A file that is being written."""
    assert parsed(list_format, body)
    for length in range(len(body)):
        with pytest.raises(ValueError):  # noqa: PT011
            parsed(list_format, body[:length])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70_000) | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["10.0.0.1", "passing", "IPv4", "EndpointSliceList"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "code", "data", "hosts", "ip", "port", "weight", "Node", "Service", "Address", "Port", "Checks", "items",
            "kind", "addressType", "endpoints", "addresses", "conditions", "ports", "address", "metadata",
        ]),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(FORMAT_NAMES), json_values)
def test_any_json_is_a_list_of_hosts_or_a_value_error(list_format: ListFormat, value: Any) -> None:
    found: list[ResolvedAddress] = []
    with contextlib.suppress(ValueError):
        found = parse_list(list_format, json.dumps(value).encode(), URL)
    assert all(address.ip and (address.port is None or 0 < address.port < 65_536) for address in found)


def test_every_format_has_its_function() -> None:
    assert set(FORMATS) == set(FORMAT_NAMES)
