"""Addresses in a configuration, and load balancing across them."""

from __future__ import annotations

import pytest

from cashier.wire.address_parser import UpstreamAddress, parse_address, parse_addresses
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
def test_an_address_is_parsed(url: str, address: UpstreamAddress, authority: str) -> None:
    assert parse_address(url) == address
    assert parse_address(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "", "card", "card:9100", "ftp://card", "http://", "http:///path", "http://card:0", "http://card:70000",
        "http://card:x", "//card", "http://card?a=1",
        "http://card#a", "http://card/a b", "http://card/\r\nX: 1", "http://kärtchen", "http://a..b",
        "unix:", "unix:relative.sock", "unix:/", "unix:/" + "x" * 107, "unix:/a\0b", "http://user:secret@card",
    ],
)  # fmt: skip
def test_an_invalid_address_is_named_with_the_supported_forms(url: str) -> None:
    with pytest.raises(ValueError, match="supported are http://host") as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)
    assert url.rpartition("@")[2].encode("unicode_escape").decode()[:5] in str(refused.value)


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@card/?key={SECRET}", f"http://card:9100/?key={SECRET}", f"http://card#{SECRET}",
        f"http://{SECRET}@card:0", f"http://u:p@{SECRET}@card/x y", f"ftp://u:{SECRET}@card",
        f"http://u:pa/{SECRET}@card", f"http://u:pa?{SECRET}@card", f"unix:rel?token={SECRET}",
        f"http://u:{SECRET}%40card/", f"http:/u:{SECRET}@card", f"http://card/?mail=a@{SECRET}",
        f"http://u:{SECRET}@card:99999/", f"http://u:{SECRET}@[::1", f"http://u:{SECRET}/", f"http://[{SECRET}@card",
    ],
)  # fmt: skip
def test_what_may_be_a_secret_in_an_address_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="supported are http://host") as refused:
        parse_address(url)
    assert SECRET not in str(refused.value)


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


class Host:
    def __init__(self, load: int = 0) -> None:
        self.load = load
        self.back_off = BackOff()


def test_the_least_load_wins() -> None:
    hosts = [Host(3), Host(1), Host(2)]
    balancer = LoadBalancer(hosts)
    assert {balancer.pick(0.0) for _ in range(6)} == {hosts[1]}


def test_ties_rotate() -> None:
    hosts = [Host(), Host(), Host(1)]
    balancer = LoadBalancer(hosts)
    assert {balancer.pick(0.0) for _ in range(6)} == set(hosts[:2])


def test_a_failed_address_is_avoided_for_a_while_and_then_used_again() -> None:
    hosts = [Host(), Host(5)]
    balancer = LoadBalancer(hosts)
    hosts[0].back_off.record_failure(10.0)
    assert balancer.pick(10.05) is hosts[1]
    assert balancer.pick(10.1) is hosts[0]


def test_repeated_failures_lengthen_the_back_off_up_to_a_bound() -> None:
    back_off = BackOff()
    now_s, pauses = 0.0, []
    for _ in range(20):
        back_off.record_failure(now_s)
        pauses.append(back_off.until_s - now_s)
        now_s = back_off.until_s
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[MAX_BACK_OFF_S] * 14])


def test_connects_that_fail_together_count_as_one_failure() -> None:
    together, single = BackOff(), BackOff()
    for _ in range(8):
        together.record_failure(1.0)
    single.record_failure(1.0)
    assert together.until_s == single.until_s


def test_a_successful_connect_ends_the_back_off() -> None:
    hosts = [Host(), Host(5)]
    balancer = LoadBalancer(hosts)
    hosts[0].back_off.record_failure(10.0)
    hosts[0].back_off.record_success()
    assert balancer.pick(10.0) is hosts[0]


def test_if_all_are_in_back_off_the_one_that_ends_first_is_used() -> None:
    hosts = [Host(), Host()]
    balancer = LoadBalancer(hosts)
    hosts[0].back_off.record_failure(10.0)
    hosts[1].back_off.record_failure(10.05)
    assert {balancer.pick(10.06) for _ in range(4)} == {hosts[0]}


def test_an_excluded_host_is_left_out_even_if_idle() -> None:
    hosts = [Host(), Host(5), Host(6)]
    balancer = LoadBalancer(hosts)
    assert {balancer.pick(0.0, avoid=0b001) for _ in range(6)} == {hosts[1]}
    assert {balancer.pick(0.0, avoid=0b011) for _ in range(6)} == {hosts[2]}


def test_if_all_hosts_are_excluded_the_best_is_used_anyway() -> None:
    hosts = [Host(2), Host(1)]
    assert {LoadBalancer(hosts).pick(0.0, avoid=0b11) for _ in range(4)} == {hosts[1]}


def test_an_excluded_host_is_not_used_although_the_others_are_in_back_off() -> None:
    hosts = [Host(), Host()]
    hosts[1].back_off.record_failure(10.0)
    assert LoadBalancer(hosts).pick(10.05, avoid=0b01) is hosts[1]
