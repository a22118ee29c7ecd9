"""Clients that mean no good, or do not know better, against a running server. After each of them it still answers the next."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from .offers import BODY
from .process import GET, Served, Talk, asking

HANG = BODY.replace(b"o_1001", b"o_hang")


@pytest.fixture(autouse=True)
def _still_serving(server: Served) -> Iterator[None]:
    yield
    assert server.ask(asking()).status == 200


@pytest.fixture
def talk(server: Served) -> Iterator[Talk]:
    with Talk(server.port) as open_talk:
        yield open_talk


def test_an_answer_has_the_headers_that_were_meant_and_no_others(talk: Talk) -> None:
    talk.say(asking())
    reply = talk.reply()
    assert reply.status == 200
    assert sorted(reply.headers) == [
        "cache-control",
        "content-length",
        "content-type",
        "date",
        "server-timing",
        "x-request-id",
    ]


def test_a_body_declared_far_too_large_is_answered_before_it_is_sent(talk: Talk) -> None:
    talk.say(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Length: 10000000\r\n\r\n")
    assert talk.reply().json["code"] == "TOO_LARGE"


def test_who_sends_ten_megabytes_anyway_reads_the_answer_and_may_go_on(talk: Talk) -> None:
    talk.say(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Length: 10000000\r\n\r\n")
    talk.say(b"x" * 10_000_000)
    assert talk.reply().status == 413
    talk.say(asking())
    assert talk.reply().status == 200


def test_ten_megabytes_in_chunks_are_refused_too(talk: Talk) -> None:
    talk.say(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(160):
        talk.say(b"10000\r\n" + b" " * 65_536 + b"\r\n")
    talk.say(b"0\r\n\r\n")
    assert talk.reply().status == 413


def test_who_waits_to_be_told_to_continue_is_told_the_answer_instead(talk: Talk) -> None:
    talk.say(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 10000000\r\n\r\n")
    assert talk.reply().status == 413


def test_a_body_that_drips_is_given_up(talk: Talk) -> None:
    talk.say(asking()[:-10])
    reply = talk.reply()
    assert (reply.status, reply.json["code"], reply.last) == (408, "BODY_TIMEOUT", True)
    assert talk.ended()


def test_a_body_that_ends_early_gets_no_answer(talk: Talk) -> None:
    talk.say(asking()[:-10])
    talk.socket.shutdown(socket.SHUT_WR)
    assert talk.ended()


def test_endless_headers_are_cut_off(talk: Talk) -> None:
    talk.say(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\n")
    with pytest.raises(ConnectionError):
        talk.say((b"X-Flood: " + b"y" * 1000 + b"\r\n") * 50_000)


def test_headers_over_the_limit_are_told_so(talk: Talk) -> None:
    talk.say(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\n" + b"X-Flood: y\r\n" * 5_500)
    reply = talk.reply()
    assert (reply.status, reply.json["code"], reply.last) == (431, "HEADERS_TOO_LARGE", True)


def test_a_url_over_the_limit_is_told_so(talk: Talk) -> None:
    talk.say(b"GET /" + b"a" * 66_000)
    assert talk.reply().status == 431


def test_a_thousand_headers_are_only_headers(talk: Talk) -> None:
    talk.say(asking().replace(b"Host: shop\r\n", b"Host: shop\r\n" + b"X-Many: y\r\n" * 1000))
    assert talk.reply().status == 200


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/consult\r\n\r\n",
        b"POST /v1/consult HTTP/9.9\r\n\r\n",
        b"POST /v1/consult HTTP/1.1\r\nHost shop\r\n\r\n",
        b"POST /v1/consult HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/consult HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/consult HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/consult HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_as_a_problem_and_the_connection_ends(talk: Talk, bytes_: bytes) -> None:
    talk.say(bytes_)
    reply = talk.reply()
    assert (reply.status, reply.json["code"], reply.last) == (400, "MALFORMED", True)
    assert reply.headers["x-request-id"]
    assert talk.ended()


def test_requests_sent_in_one_go_are_answered_in_order(talk: Talk) -> None:
    orders = [f"o_{number}" for number in range(50)]
    talk.say(b"".join(asking(BODY.replace(b"o_1001", order.encode())) for order in orders))
    assert [talk.reply().json["order"]["order_id"] for _ in orders] == orders


def test_garbage_behind_good_requests_does_not_overtake_their_answers(talk: Talk) -> None:
    talk.say(asking() + asking() + b"\x00garbage\r\n\r\n")
    assert [talk.reply().status for _ in range(2)] == [200, 200]
    assert talk.ended()


def test_a_request_in_single_bytes_is_one_request(talk: Talk) -> None:
    talk.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in asking():
        talk.say(bytes([byte]))
    assert talk.reply().status == 200


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_a_wish_for_another_protocol_is_overlooked(talk: Talk, upgrade: bytes) -> None:
    wish = (
        b"Host: shop\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
        + upgrade
        + b"\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    )
    wishing = asking().replace(b"Host: shop\r\n", wish)
    talk.say(wishing + asking())
    assert [talk.reply().status, talk.reply().status] == [200, 200]
    talk.say(wishing[:-30])
    talk.say(wishing[-30:])
    assert talk.reply().status == 200


def test_a_tunnel_is_not_built(talk: Talk) -> None:
    talk.say(b"CONNECT bank:443 HTTP/1.1\r\nHost: bank:443\r\n\r\n")
    reply = talk.reply()
    assert (reply.status, reply.last) == (400, True)
    assert talk.ended()


def test_a_client_of_http_1_0_is_answered_and_left(talk: Talk) -> None:
    talk.say(asking().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert talk.reply().status == 200
    assert talk.ended()


def test_head_has_no_body(talk: Talk) -> None:
    talk.say(b"HEAD /healthz HTTP/1.1\r\nHost: shop\r\n\r\n" + GET % b"/healthz")
    assert talk.head().startswith(b"HTTP/1.1 200")
    assert talk.reply().json == {"status": "ok"}


def test_who_hangs_up_ends_the_work_that_was_for_them(server: Served) -> None:
    request = asking(HANG).replace(b"Host: shop\r\n", b"Host: shop\r\nX-Request-Id: gone\r\n")
    with Talk(server.port) as talk:
        talk.say(request)
        assert server.line() == "asked gone"
    assert server.line() == "over gone"


def test_a_problem_is_json_for_everybody(talk: Talk) -> None:
    talk.say((GET % b"/nowhere").replace(b"Host: shop\r\n", b"Host: shop\r\nAccept: text/html\r\n"))
    reply = talk.reply()
    assert reply.headers["content-type"] == "application/problem+json"
    assert json.loads(reply.body)["code"] == "NOT_FOUND"
