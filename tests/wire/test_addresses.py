"""Addresses as a configuration may name them, and which of several is next."""

from __future__ import annotations

import pytest

from cashier.wire.addresses import UpstreamAddress, parse_address, parse_addresses
from cashier.wire.aiohttp_client import AiohttpClient
from cashier.wire.http1 import Http1Client
from cashier.wire.load_balancing import MAX_BACK_OFF_S, BackOff, LoadBalancer


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("http://card", UpstreamAddress("http://card", "card", 80, ""), "card"),
        (
            "http://10.0.0.1:9100/v1/",
            UpstreamAddress("http://10.0.0.1:9100/v1/", "10.0.0.1", 9100, "/v1"),
            "10.0.0.1:9100",
        ),
        ("https://card", UpstreamAddress("https://card", "card", 443, "", tls=True), "card"),
        ("https://card:80", UpstreamAddress("https://card:80", "card", 80, "", tls=True), "card:80"),
        ("http://[::1]:81", UpstreamAddress("http://[::1]:81", "::1", 81, ""), "[::1]:81"),
        (
            "unix:/run/card.sock",
            UpstreamAddress("unix:/run/card.sock", "localhost", 0, "", socket_path="/run/card.sock"),
            "localhost",
        ),
    ],
)
def test_an_address_is_taken_apart(url: str, address: UpstreamAddress, authority: str) -> None:
    assert parse_address(url) == address
    assert parse_address(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "", "card", "card:9100", "ftp://card", "http://", "http:///path", "http://card:0", "http://card:70000", "http://card:x", "//card",
        "http://card?a=1", "http://card#a", "http://card/a b", "http://card/\r\nX: 1", "http://kärtchen", "http://a..b",
        "unix:", "unix:relative.sock", "unix:/", "unix:/" + "x" * 107, "unix:/a\0b", "http://user:secret@card",
    ],
)  # fmt: skip
def test_an_address_that_is_not_understood_is_named_with_what_is(url: str) -> None:
    with pytest.raises(ValueError, match="supported are http://host") as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)
    assert url.rpartition("@")[2].encode("unicode_escape").decode()[:5] in str(refused.value)


@pytest.mark.parametrize("transport", [Http1Client, AiohttpClient])
def test_every_transport_refuses_a_bad_address_and_no_address(
    transport: type[Http1Client] | type[AiohttpClient],
) -> None:
    with pytest.raises(ValueError, match="gopher://card"):
        transport(["http://card", "gopher://card"])
    with pytest.raises(ValueError, match="no address given"):
        transport([])


def test_addresses_keep_their_order() -> None:
    assert [address.host for address in parse_addresses(("http://b", "http://a"))] == ["b", "a"]


class Lane:
    def __init__(self, load: int = 0) -> None:
        self.load = load
        self.back_off = BackOff()


def test_the_least_load_wins() -> None:
    lanes = [Lane(3), Lane(1), Lane(2)]
    balancer = LoadBalancer(lanes)
    assert {balancer.pick(0.0) for _ in range(6)} == {lanes[1]}


def test_ties_rotate() -> None:
    lanes = [Lane(), Lane(), Lane(1)]
    balancer = LoadBalancer(lanes)
    assert {balancer.pick(0.0) for _ in range(6)} == set(lanes[:2])


def test_an_address_that_failed_is_avoided_for_a_while_and_then_asked_again() -> None:
    lanes = [Lane(), Lane(5)]
    balancer = LoadBalancer(lanes)
    lanes[0].back_off.record_failure(10.0)
    assert balancer.pick(10.05) is lanes[1]
    assert balancer.pick(10.1) is lanes[0]


def test_failing_again_and_again_is_avoided_longer_up_to_a_bound() -> None:
    back_off = BackOff()
    now_s, pauses = 0.0, []
    for _ in range(20):
        back_off.record_failure(now_s)
        pauses.append(back_off.until_s - now_s)
        now_s = back_off.until_s
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[MAX_BACK_OFF_S] * 14])


def test_connects_that_fail_together_are_one_failure() -> None:
    together, once = BackOff(), BackOff()
    for _ in range(8):
        together.record_failure(1.0)
    once.record_failure(1.0)
    assert together.until_s == once.until_s


def test_a_connect_that_works_ends_the_back_off() -> None:
    lanes = [Lane(), Lane(5)]
    balancer = LoadBalancer(lanes)
    lanes[0].back_off.record_failure(10.0)
    lanes[0].back_off.record_success()
    assert balancer.pick(10.0) is lanes[0]


def test_where_all_are_avoided_the_one_avoided_shortest_is_asked() -> None:
    lanes = [Lane(), Lane()]
    balancer = LoadBalancer(lanes)
    lanes[0].back_off.record_failure(10.0)
    lanes[1].back_off.record_failure(10.05)
    assert {balancer.pick(10.06) for _ in range(4)} == {lanes[0]}


def test_a_lane_to_avoid_is_left_out_however_idle_it_is() -> None:
    lanes = [Lane(), Lane(5), Lane(6)]
    balancer = LoadBalancer(lanes)
    assert {balancer.pick(0.0, avoid=0b001) for _ in range(6)} == {lanes[1]}
    assert {balancer.pick(0.0, avoid=0b011) for _ in range(6)} == {lanes[2]}


def test_where_all_lanes_are_to_be_avoided_the_best_is_asked_all_the_same() -> None:
    lanes = [Lane(2), Lane(1)]
    assert {LoadBalancer(lanes).pick(0.0, avoid=0b11) for _ in range(4)} == {lanes[1]}


def test_a_lane_to_avoid_is_not_asked_because_the_others_are_in_back_off() -> None:
    lanes = [Lane(), Lane()]
    lanes[1].back_off.record_failure(10.0)
    assert LoadBalancer(lanes).pick(10.05, avoid=0b01) is lanes[1]
