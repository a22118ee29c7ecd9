"""A bearer token (RFC 6750) from a file or the environment."""

from __future__ import annotations

import re

from cashier.source_errors import SourceError
from cashier.sources.auth.authenticator import with_headers
from cashier.sources.auth.secret import Secret
from cashier.wire.transport import Request, Response

# RFC 6750, section 2.1.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
MAX_TOKEN_BYTES = 8192

Headers = tuple[tuple[str, str], ...]


def authorization(token: bytes) -> Headers:
    """The header of a token. ValueError, without the token, for what is none."""
    if len(token) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
        raise ValueError("is no bearer token: it holds other characters, or several lines, or the word Bearer")
    return (("Authorization", f"Bearer {token.decode('ascii')}"),)


class BearerToken:
    """An `Authenticator`."""

    slow = reads_headers = False

    def __init__(self, headers: Secret[Headers]) -> None:
        self._headers = headers

    def authenticate(self, request: Request) -> Request:
        return with_headers(request, self._headers.value)

    def judge(self, request: Request, response: Response) -> Response | SourceError:
        return response

    def __repr__(self) -> str:
        return "<BearerToken>"
