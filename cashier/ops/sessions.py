"""Sessions of operators who signed in with a bearer token, and tokens against forged requests.

A session lives in this process, for an hour at most and never longer than its token. The browser
has a random cookie; this process has only its hash.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

LIFE_S = 3600.0
_MOST_SESSIONS = 200
# Failed sign-ins of one client address within a minute, and client addresses that are remembered.
MOST_FAILURES = 10
_FAILURES_S = 60.0
_MOST_CLIENTS = 1000


class Sessions:
    """`now`: seconds since 1970."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._expiry: dict[str, float] = {}
        self._secret = secrets.token_bytes(32)
        self._failures: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<Sessions of {len(self._expiry)}>"

    def open(self, token_expires_at: float) -> tuple[str, int]:
        """A new session: the value of its cookie, and its life in seconds."""
        now = self._now()
        expires_at = min(now + LIFE_S, token_expires_at)
        self._expiry = {key: at for key, at in self._expiry.items() if at > now}
        if len(self._expiry) >= _MOST_SESSIONS:
            del self._expiry[min(self._expiry, key=lambda key: self._expiry[key])]
        cookie = secrets.token_urlsafe(32)
        self._expiry[_hash(cookie)] = expires_at
        return cookie, max(1, int(expires_at - now))

    def is_open(self, cookie: str | None) -> bool:
        return cookie is not None and self._expiry.get(_hash(cookie), 0.0) > self._now()

    def close(self, cookie: str | None) -> None:
        if cookie is not None:
            self._expiry.pop(_hash(cookie), None)

    def form_token(self, cookie: str | None) -> str:
        """What a form must carry: a page of another site cannot read it. Bound to the session."""
        return hmac.new(self._secret, (cookie or "").encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, token: str, cookie: str | None) -> bool:
        return hmac.compare_digest(token.encode(), self.form_token(cookie).encode())

    def may_try(self, client: str) -> bool:
        """Whether this client address has not failed too often within the last minute."""
        since, count = self._failures.get(client, (0.0, 0))
        return self._now() - since >= _FAILURES_S or count < MOST_FAILURES

    def note_failure(self, client: str) -> None:
        now = self._now()
        since, count = self._failures.pop(client, (now, 0))
        if now - since >= _FAILURES_S:
            since, count = now, 0
        if len(self._failures) >= _MOST_CLIENTS:
            del self._failures[next(iter(self._failures))]
        self._failures[client] = (since, count + 1)


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
