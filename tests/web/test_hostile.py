"""Hostile and broken clients against a running server, which must still serve the next client."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.web.fake_service import BODY
from tests.web.server_process import GET, RawClient, ServerProcess, consult_request

HANG = BODY.replace(b"o_1001", b"o_hang")


@pytest.fixture(autouse=True)
def _still_serving(server: ServerProcess) -> Iterator[None]:
    yield
    assert server.request(consult_request()).status == 200


@pytest.fixture
def client(server: ServerProcess) -> Iterator[RawClient]:
    with RawClient(server.port) as open_talk:
        yield open_talk


def test_a_response_has_exactly_the_documented_headers(client: RawClient) -> None:
    client.send(consult_request())
    response = client.read_response()
    assert response.status == 200
    assert sorted(response.headers) == [
        "cache-control",
        "content-length",
        "content-type",
        "date",
        "server-timing",
        "x-request-id",
    ]


def test_a_body_that_is_declared_far_too_large_is_refused_before_it_is_sent(client: RawClient) -> None:
    client.send(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Length: 10000000\r\n\r\n")
    assert client.read_response().json["code"] == "TOO_LARGE"


def test_a_client_that_sends_the_refused_body_anyway_can_go_on(client: RawClient) -> None:
    client.send(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Length: 10000000\r\n\r\n")
    client.send(b"x" * 10_000_000)
    assert client.read_response().status == 413
    client.send(consult_request())
    assert client.read_response().status == 200


def test_ten_megabytes_in_chunks_are_refused(client: RawClient) -> None:
    client.send(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(160):
        client.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")
    client.send(b"0\r\n\r\n")
    assert client.read_response().status == 413


def test_a_client_that_expects_100_continue_gets_the_refusal_instead(client: RawClient) -> None:
    client.send(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 10000000\r\n\r\n")
    assert client.read_response().status == 413


def test_a_body_that_ends_early_gets_no_response(client: RawClient) -> None:
    client.send(consult_request()[:-10])
    client.socket.shutdown(socket.SHUT_WR)
    assert client.is_closed()


def test_endless_headers_end_the_connection(client: RawClient) -> None:
    client.send(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\n")
    with pytest.raises(ConnectionError):
        client.send((b"X-Flood: " + b"y" * 1000 + b"\r\n") * 50_000)


def test_headers_over_the_limit_are_refused(client: RawClient) -> None:
    client.send(b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\n" + b"X-Flood: y\r\n" * 5_500)
    response = client.read_response()
    assert (response.status, response.json["code"], response.closes_connection) == (431, "HEADERS_TOO_LARGE", True)


def test_a_url_over_the_limit_is_refused(client: RawClient) -> None:
    client.send(b"GET /" + b"a" * 66_000)
    assert client.read_response().status == 431


def test_a_thousand_headers_are_accepted(client: RawClient) -> None:
    client.send(consult_request().replace(b"Host: shop\r\n", b"Host: shop\r\n" + b"X-Many: y\r\n" * 1000))
    assert client.read_response().status == 200


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
def test_bytes_that_are_not_http_get_a_problem_and_end_the_connection(client: RawClient, bytes_: bytes) -> None:
    client.send(bytes_)
    response = client.read_response()
    assert (response.status, response.json["code"], response.closes_connection) == (400, "MALFORMED", True)
    assert response.headers["x-request-id"]
    assert client.is_closed()


def test_pipelined_requests_are_answered_in_order(client: RawClient) -> None:
    orders = [f"o_{number}" for number in range(50)]
    client.send(b"".join(consult_request(BODY.replace(b"o_1001", order.encode())) for order in orders))
    assert [client.read_response().json["order"]["order_id"] for _ in orders] == orders


def test_garbage_after_requests_does_not_overtake_their_responses(client: RawClient) -> None:
    client.send(consult_request() + consult_request() + b"\x00garbage\r\n\r\n")
    assert [client.read_response().status for _ in range(3)] == [200, 200, 400]
    assert client.is_closed()


def test_a_request_in_single_bytes_is_answered(client: RawClient) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in consult_request():
        client.send(bytes([byte]))
    assert client.read_response().status == 200


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_a_protocol_upgrade_is_ignored(client: RawClient, upgrade: bytes) -> None:
    upgrade_headers = (
        b"Host: shop\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
        + upgrade
        + b"\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    )
    upgrading = consult_request().replace(b"Host: shop\r\n", upgrade_headers)
    client.send(upgrading + consult_request())
    assert [client.read_response().status, client.read_response().status] == [200, 200]
    client.send(upgrading[:-30])
    client.send(upgrading[-30:])
    assert client.read_response().status == 200


def test_connect_is_refused(client: RawClient) -> None:
    client.send(b"CONNECT bank:443 HTTP/1.1\r\nHost: bank:443\r\n\r\n")
    response = client.read_response()
    assert (response.status, response.closes_connection) == (400, True)
    assert client.is_closed()


def test_an_http_1_0_client_is_answered_and_its_connection_closed(client: RawClient) -> None:
    client.send(consult_request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert client.read_response().status == 200
    assert client.is_closed()


def test_head_has_no_body(client: RawClient) -> None:
    client.send(b"HEAD /healthz HTTP/1.1\r\nHost: shop\r\n\r\n" + GET % b"/healthz")
    assert client.read_head().startswith(b"HTTP/1.1 200")
    assert client.read_response().json["status"] == "ok"


def test_a_disconnect_ends_the_work_for_the_client(server: ServerProcess) -> None:
    request = consult_request(HANG).replace(b"Host: shop\r\n", b"Host: shop\r\nX-Request-Id: gone\r\n")
    with RawClient(server.port) as client:
        client.send(request)
        assert server.line() == "started gone"
    assert server.line() == "ended gone"


def test_a_problem_is_json_also_for_a_client_that_accepts_html(client: RawClient) -> None:
    client.send((GET % b"/nowhere").replace(b"Host: shop\r\n", b"Host: shop\r\nAccept: text/html\r\n"))
    response = client.read_response()
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["code"] == "NOT_FOUND"
