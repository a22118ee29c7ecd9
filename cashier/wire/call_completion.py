"""Common to all transports: description of a failure, delivery of the outcome, unread bytes."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl

from cashier.source_errors import FailureReason, SourceError
from cashier.wire.transport import OnResponse, Response


def describe_failure(error: BaseException | None) -> str:
    """Describe, without content, what broke a connection. None: an orderly close."""
    if error is None:
        return "closed before a complete answer"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return type(error).__name__


def connect_failure_reason(error: BaseException, *, tls: bool) -> FailureReason:
    """What kept a connection from opening. With `tls`, a reset meanwhile refuses our handshake."""
    match error:
        case ssl.SSLError():
            return FailureReason.TLS
        case ConnectionRefusedError():
            return FailureReason.REFUSED
        case ConnectionResetError() | ConnectionAbortedError() | BrokenPipeError():
            return FailureReason.TLS if tls else FailureReason.RESET
        case socket.gaierror():
            return FailureReason.DNS
        case TimeoutError():
            return FailureReason.CONNECT_TIMEOUT
    return FailureReason.UNREACHABLE


def loss_reason(error: BaseException | None) -> FailureReason:
    """What broke an open connection. In TLS 1.3 a server refuses a certificate only then."""
    return FailureReason.TLS if isinstance(error, ssl.SSLError) else FailureReason.RESET


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Bytes or an end have arrived that the loop has not read yet."""
    raw = transport.get_extra_info("socket")
    if raw is None:
        return False
    waiting = select.poll()
    waiting.register(raw.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def deliver(on_response: OnResponse, outcome: Response | SourceError) -> None:
    """Call `on_response`. Its exception is a bug and goes to the loop's exception handler."""
    try:
        on_response(outcome)
    except Exception as bug:  # noqa: BLE001 — raised here, it would end a connection or starve other callbacks
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"a response callback raised {type(bug).__name__}", "exception": bug}
        )
