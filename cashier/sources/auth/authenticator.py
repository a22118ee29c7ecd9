"""What each method of authentication does: complete a request, and judge the response to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cashier.source_errors import FailureReason, SourceError, Unreachable
from cashier.wire.transport import Request, Response


class Authenticator(Protocol):
    """`slow`: `authenticate` takes too long for the event loop, and runs in a thread.

    `reads_headers`: `judge` needs the headers of the response.
    """

    slow: bool
    reads_headers: bool

    def authenticate(self, request: Request) -> Request:
        """The request with its credential, for one use. Raises `SourceError` with `sent` False."""

    def judge(self, request: Request, response: Response) -> Response | SourceError:
        """The response to an authenticated request, or the error in the place of a forged one."""


def not_sent(detail: str, reason: FailureReason) -> Unreachable:
    """A request that cannot be authenticated, and so was not sent."""
    return Unreachable(detail, sent=False, reason=reason)


def with_headers(
    request: Request,
    headers: tuple[tuple[str, str], ...],
    *,
    target: str | None = None,
    body: bytes | None = None,
    renew: Callable[[], Request] | None = None,
) -> Request:
    """The request with more headers. Raises `SourceError` if it has one of them already.

    `renew`: see `Request`; for a signature with a time or a nonce.
    """
    if request.headers:
        present = {name.lower() for name, _ in request.headers}
        for name, _ in headers:
            if name.lower() in present:
                taken = f"the adapter sets the header {name}, which auth of this source sets"
                raise not_sent(taken, FailureReason.ADAPTER)
    return Request(
        request.target if target is None else target,
        request.method,
        request.body if body is None else body,
        request.safe,
        (*request.headers, *headers),
        request.read_only,
        renew,
    )
