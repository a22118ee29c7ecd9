"""OAuth 2.0 client credentials in virtual time: fetched ahead, never waited for, never looped."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest
from structlog.testing import capture_logs

from cashier.source_errors import FailureReason, SourceError, Unreachable
from cashier.sources.auth.client_credentials import ClientCredentials
from cashier.sources.auth.settings import ClientCredentialsSettings
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import Request, Response

from .conftest import secret_of

pytestmark = pytest.mark.virtual_time

TOKEN_URL = "https://sso.example/oauth/token?tenant=1"
SECRET = "s3cret+/% ü"


class Endpoint:
    """A token endpoint. `answers`: the next ones, the last stays. None: t1, t2, … of 100 s."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.at_s: list[float] = []

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        self.at_s.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else (self.answers or [None])[0]
        if answer is None:
            return token(f"t{len(self.requests)}")
        if isinstance(answer, Response):
            return answer
        if answer == "silence":
            await asyncio.Event().wait()
        raise Unreachable("refused", reason=FailureReason.REFUSED)


def token(text: str, **changed: Any) -> Response:
    answer = {"access_token": text, "token_type": "Bearer", "expires_in": 100} | changed
    return Response(200, json.dumps(answer).encode())


@asynccontextmanager
async def opened(endpoint: Endpoint, **settings: Any) -> AsyncIterator[ClientCredentials]:
    given = ClientCredentialsSettings(TOKEN_URL, "cashier", **settings)
    clock = asyncio.get_running_loop().time
    credentials = ClientCredentials(given, secret_of(SECRET), InProcessTransport(endpoint), clock)
    await credentials.open()
    try:
        yield credentials
    finally:
        await credentials.close()


def bearer(credentials: ClientCredentials) -> str:
    return dict(credentials.authenticate(Request("/a")).headers)["Authorization"]


def failure(credentials: ClientCredentials) -> SourceError:
    with pytest.raises(SourceError) as raised:
        credentials.authenticate(Request("/a"))
    return raised.value


def refuse(credentials: ClientCredentials) -> None:
    credentials.judge(credentials.authenticate(Request("/a")), Response(401, b""))


async def test_a_token_is_there_once_it_is_open_and_is_replaced_before_it_ends() -> None:
    endpoint = Endpoint()
    async with opened(endpoint) as credentials:
        assert bearer(credentials) == "Bearer t1"
        await asyncio.sleep(69)
        assert bearer(credentials) == "Bearer t1"
        await asyncio.sleep(12)
        assert bearer(credentials) == "Bearer t2"
        await asyncio.sleep(1000)
    assert all(70 <= later - earlier <= 80 for earlier, later in zip(endpoint.at_s, endpoint.at_s[1:], strict=False))


async def test_the_request_is_that_of_the_rfc() -> None:
    endpoint = Endpoint()
    async with opened(endpoint, scope="cards quotas", audience="card"):
        request = endpoint.requests[0]
    assert (request.method, request.target) == ("POST", "/oauth/token?tenant=1")
    form = parse_qs(request.body.decode())
    assert form == {"grant_type": ["client_credentials"], "scope": ["cards quotas"], "audience": ["card"]}
    pair = dict(request.headers)["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(pair) == b"cashier:s3cret%2B%2F%25+%C3%BC"


async def test_a_client_can_identify_itself_in_the_form() -> None:
    endpoint = Endpoint()
    async with opened(endpoint, client_auth="post"):
        request = endpoint.requests[0]
    form = parse_qs(request.body.decode())
    assert (form["client_id"], form["client_secret"]) == (["cashier"], [SECRET])
    assert "Authorization" not in dict(request.headers)


async def test_without_a_token_a_call_fails_at_once_and_says_why() -> None:
    endpoint = Endpoint(Response(401, b'{"error":"invalid_client","error_description":"s3cret"}'))
    async with opened(endpoint) as credentials:
        error = failure(credentials)
    assert error.reason is FailureReason.NO_CREDENTIAL
    assert error.sent is False
    assert error.detail == "no token from https://sso.example/oauth/token: status 401 invalid_client"


async def test_a_silent_endpoint_delays_the_start_by_two_seconds_only() -> None:
    loop = asyncio.get_running_loop()
    async with opened(Endpoint("silence")) as credentials:
        assert loop.time() <= 2.1
        assert "none was fetched yet" in failure(credentials).detail
        await asyncio.sleep(4)
        assert "no answer within" in failure(credentials).detail


async def test_a_token_serves_to_its_end_while_the_endpoint_fails() -> None:
    endpoint = Endpoint(token("t1"), Response(503, b""))
    async with opened(endpoint) as credentials:
        await asyncio.sleep(99)
        assert bearer(credentials) == "Bearer t1"
        await asyncio.sleep(2)
        assert "status 503" in failure(credentials).detail
        endpoint.answers = [None]
        await asyncio.sleep(60)
        assert bearer(credentials).startswith("Bearer t")


async def test_a_failing_endpoint_is_asked_with_growing_pauses_and_one_line_a_minute() -> None:
    endpoint = Endpoint("refused")
    with capture_logs() as logs:
        async with opened(endpoint):
            await asyncio.sleep(600)
    pauses = [later - earlier for earlier, later in zip(endpoint.at_s, endpoint.at_s[1:], strict=False)]
    assert pauses[0] <= 1
    assert 12 <= len(pauses) <= 30
    assert max(pauses) <= 60
    assert 5 <= len(logs) <= 11
    assert {log["reason"] for log in logs} == {"refused"}


async def test_a_refused_token_is_replaced_once_and_not_in_a_loop() -> None:
    endpoint = Endpoint()
    async with opened(endpoint) as credentials:
        for _ in range(50):
            refuse(credentials)
        await asyncio.sleep(0.1)
        assert bearer(credentials) == "Bearer t2"
        for _ in range(50):
            refuse(credentials)
            await asyncio.sleep(0.1)
        assert len(endpoint.requests) == 2
        await asyncio.sleep(30)
        refuse(credentials)
        await asyncio.sleep(0.1)
        assert bearer(credentials) == "Bearer t3"


async def test_a_late_refusal_of_an_earlier_token_replaces_nothing() -> None:
    endpoint = Endpoint()
    async with opened(endpoint) as credentials:
        early = credentials.authenticate(Request("/a"))
        await asyncio.sleep(81)
        credentials.judge(early, Response(401, b""))
        credentials.judge(credentials.authenticate(Request("/a")), Response(403, b""))
        await asyncio.sleep(1)
        assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (Response(200, b"<html>s3cret"), "no access_token"),
        (Response(200, b"{}"), "no access_token"),
        (Response(200, b"\xff"), "no access_token"),
        (Response(200, b'{"a": ' + b"[" * 100_000), "no access_token"),
        (Response(400, b'{"error": ' + b"[" * 100_000), "status 400"),
        (Response(302, b""), "status 302"),
        (Response(400, b'{"error":"a b s3cret"}'), "status 400"),
        (Response(400, b'{"error":["s3cret"]}'), "status 400"),
        (token("t", token_type="mac"), "another type"),
        (token("t\r\nX: s3cret"), "no bearer token"),
        (token(""), "no bearer token"),
        (token("t", expires_in=0), "expires_in"),
        (token("t", expires_in=-5), "expires_in"),
        (token("t", expires_in="soon s3cret"), "expires_in"),
        (token("t", expires_in="NaN"), "expires_in"),
        (token("t", expires_in=True), "expires_in"),
        (token("t", expires_in=["s3cret"]), "expires_in"),
        (token("t", expires_in={"s": "s3cret"}), "expires_in"),
        (token("t", expires_in=""), "expires_in"),
        (token("t", token_type=["s3cret"]), "another type"),
        (token("t", token_type=7), "another type"),
        (token("t", token_type=""), "another type"),
        (Response(200, b'{"access_token":"t","expires_in":%s}' % (b"9" * 400)), "expires_in"),
    ],
)
async def test_an_answer_without_a_usable_token_is_a_failure_that_quotes_nothing(answer: Response, names: str) -> None:
    with capture_logs() as logs:
        async with opened(Endpoint(answer)) as credentials:
            detail = failure(credentials).detail
    assert names in detail
    assert "s3cret" not in f"{detail}{logs}"


@pytest.mark.parametrize(
    ("changed", "least_s", "most_s"),
    [
        ({"expires_in": None}, 630, 720),
        ({"expires_in": "100"}, 70, 80),
        ({"expires_in": 0.001}, 1, 1),
        ({"expires_in": 1e300}, 60_480, 69_120),
        ({"expires_in": 10**20, "token_type": None}, 60_480, 69_120),
    ],
)
async def test_the_next_token_is_fetched_by_the_life_of_the_last_within_bounds(
    changed: dict[str, Any], least_s: float, most_s: float
) -> None:
    endpoint = Endpoint(token("t", **changed))
    async with opened(endpoint):
        await asyncio.sleep(most_s + 1)
    assert least_s <= endpoint.at_s[1] - endpoint.at_s[0] <= most_s + 0.1
