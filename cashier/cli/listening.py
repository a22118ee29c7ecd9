"""Addresses that a command cannot listen on, as one line for the user of the command line."""

from __future__ import annotations

import errno
import socket


def host_and_port(host: str, port: int) -> str:
    """`127.0.0.1:8080`, `[::1]:8080`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen_fault(host: str, port: int, error: OSError | UnicodeError) -> str:
    """The fault and its remedy."""
    at = host_and_port(host, port)
    if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: choose another --host"
    if error.errno == errno.EADDRINUSE:
        return f"{at} is in use: stop the other program or choose another --port"
    if error.errno == errno.EACCES:
        return f"{at} needs more permissions: choose another --port, 1024 or above"
    return f"{at} cannot be opened: {error.strerror or error}"
