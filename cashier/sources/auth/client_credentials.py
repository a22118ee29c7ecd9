"""Tokens of OAuth 2.0 client credentials (RFC 6749, section 4.4), fetched in the background.

No call waits for a token. One is fetched at start and replaced long before it ends; while there is
none, the source fails and says why.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
import uuid
from collections.abc import Callable
from random import uniform
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec
import structlog
from msgspec import Struct

from cashier.source_errors import FailureReason, Garbled, SourceError
from cashier.sources.auth.authenticator import not_sent, with_headers
from cashier.sources.auth.bearer import Headers, authorization
from cashier.sources.auth.secret import Secret
from cashier.sources.auth.settings import ClientCredentialsSettings
from cashier.wire.awaited_call import send_and_wait
from cashier.wire.transport import CallHeaders, Request, Response, Transport

# How long a start waits for the first token.
START_WAIT_S = 2.0
FETCH_MS = 5_000
# A token is replaced after this part of its life, so that an endpoint may fail for the rest.
_EARLIEST, _LATEST = 0.7, 0.8
# Of a token without `expires_in`, and the longest time between two fetches.
_ASSUMED_S, _LONGEST_S = 900.0, 86_400.0
_SHORTEST_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
# The least time between two tokens that are fetched because the service refused one.
_FORCED_EVERY_S = 30.0
_REPEAT_S = 60.0
# RFC 6749, section 5.2. Longer or other texts may quote something.
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_log = structlog.get_logger("cashier")


class _Token(Struct, frozen=True):
    """Some servers write numbers as texts, and leave the type out."""

    access_token: str
    token_type: Any = None
    expires_in: Any = None


class _Refusal(Struct, frozen=True):
    error: Any = None


class ClientCredentials:
    """An `Authenticator` with a task of its own between `open` and `close`."""

    slow = reads_headers = False

    def __init__(
        self,
        settings: ClientCredentialsSettings,
        secret: Secret[bytes],
        endpoint: Transport,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`endpoint`: the host of the token endpoint."""
        self._settings = settings
        self._secret = secret
        self._endpoint = endpoint
        self._clock_s = clock_s
        self._where = settings.token_url.partition("?")[0]
        self._headers: Headers | None = None
        self._ends_s = 0.0
        self._fault = "none was fetched yet"
        self._fetching: asyncio.Task[None] | None = None
        self._forced = asyncio.Event()
        self._forced_s = self._logged_s = float("-inf")

    def authenticate(self, request: Request) -> Request:
        if self._headers is None or self._clock_s() >= self._ends_s:
            raise not_sent(f"no token from {self._where}: {self._fault}", FailureReason.NO_CREDENTIAL)
        return with_headers(request, self._headers)

    def judge(self, request: Request, response: Response) -> Response | SourceError:
        """A 401 to the present token fetches another one, at most twice a minute."""
        if response.status == 401 and self._headers is not None and self._headers[0] in request.headers:
            now_s = self._clock_s()
            if now_s - self._forced_s >= _FORCED_EVERY_S:
                self._forced_s = now_s
                self._forced.set()
        return response

    async def open(self) -> None:
        """Return with the first token, its failure, or after `START_WAIT_S`."""
        first = asyncio.Event()
        self._fetching = asyncio.create_task(self._fetch_always(first))
        try:
            async with asyncio.timeout(START_WAIT_S):
                await first.wait()
        except TimeoutError:
            self._report(f"no answer within {START_WAIT_S:g} s yet")

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait((self._fetching,))
        await self._endpoint.close()

    async def _fetch_always(self, first: asyncio.Event) -> None:
        failures = 0
        while True:
            self._forced.clear()
            fetched_s = self._clock_s()
            try:
                headers, life_s = _token(await self._answer())
            except Exception as fault:  # noqa: BLE001 - a bug must not end the tokens for good
                self._fault = fault.detail if isinstance(fault, SourceError) else type(fault).__name__
                self._report(self._fault)
                pause_s = min(_FIRST_PAUSE_S * 2**failures, _LONGEST_PAUSE_S) * uniform(0.5, 1)
                failures = min(failures + 1, 10)
            else:
                self._headers, self._ends_s = headers, fetched_s + life_s
                self._fault = "the last one has ended"
                pause_s = max(_SHORTEST_S, min(life_s, _LONGEST_S) * uniform(_EARLIEST, _LATEST))
                failures = 0
            first.set()
            try:
                async with asyncio.timeout(pause_s):
                    await self._forced.wait()
            except TimeoutError:
                continue

    async def _answer(self) -> Response:
        """Raises `SourceError`."""
        settings, secret = self._settings, self._secret.value
        form = {"grant_type": "client_credentials"}
        form |= {key: value for key in ("scope", "audience") if (value := getattr(settings, key))}
        headers = [("Content-Type", "application/x-www-form-urlencoded")]
        if settings.client_auth == "post":
            form |= {"client_id": settings.client_id, "client_secret": secret.decode("utf-8", "surrogateescape")}
        else:
            # RFC 6749, section 2.3.1: both are form-encoded first.
            pair = f"{quote_plus(settings.client_id)}:{quote_plus(secret)}".encode("ascii")
            headers.append(("Authorization", f"Basic {base64.b64encode(pair).decode('ascii')}"))
        parts = urlsplit(settings.token_url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = urlencode(form, errors="surrogateescape").encode("ascii")
        request = Request(target, "POST", body, headers=tuple(headers))
        answer = await send_and_wait(self._endpoint, request, CallHeaders(f"token-{uuid.uuid4().hex}"), FETCH_MS)
        if isinstance(answer, SourceError):
            raise answer
        return answer

    def _report(self, fault: str) -> None:
        now_s = self._clock_s()
        if now_s - self._logged_s >= _REPEAT_S:
            self._logged_s = now_s
            left_s = max(0, round(self._ends_s - now_s)) if self._headers is not None else 0
            _log.warning("no token was issued", endpoint=self._where, reason=fault, last_one_ends_in_s=left_s)

    def __repr__(self) -> str:
        return f"<ClientCredentials of {self._where}>"


def _token(answer: Response) -> tuple[Headers, float]:
    """The header and the life of a token. Raises `Garbled`, which quotes nothing but a code."""
    if answer.status != 200:
        raise Garbled(f"status {answer.status}{_code(answer.body)}")
    try:
        token = msgspec.json.decode(answer.body, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Garbled("its answer has no access_token, or is no JSON") from None
    if token.token_type is not None and str(token.token_type).lower() != "bearer":
        raise Garbled("it issues tokens of another type than bearer")
    life_s = _ASSUMED_S if token.expires_in is None else _number(token.expires_in)
    if not life_s > 0:
        raise Garbled("expires_in in its answer is no number of seconds above 0")
    try:
        return authorization(token.access_token.encode()), life_s
    except ValueError as fault:
        raise Garbled(f"access_token in its answer {fault}") from None


def _number(value: Any) -> float:
    """0 for what is none."""
    try:
        return float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _code(body: bytes) -> str:
    try:
        code = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return f" {code}" if isinstance(code, str) and _CODE.fullmatch(code) else ""
