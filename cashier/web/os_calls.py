"""What the server asks of the system: addresses, a socket filter, a death signal, open files."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import socket
import struct
from collections.abc import Iterable
from typing import Any

# Classic BPF over the TCP header: byte 13 holds the flags; SYN (0x02) without ACK (0x10) is
# dropped, everything else passes.
_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
_DROP_NEW = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (_LOAD_BYTE, 0, 0, 13),
        (_AND, 0, 0, 0x12),
        (_JUMP_IF_EQUAL, 0, 1, 0x02),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0xFFFF_FFFF),
    )
)
_SO_ATTACH_FILTER = 26
_PR_SET_PDEATHSIG = 1


def refuse_new_connections(sockets: Iterable[socket.socket]) -> bool:
    """Drop new connection attempts on `sockets`; established ones and handshakes stay acceptable.

    Closing a listening socket resets every connection in its accept queue, and only a socket filter
    stops the queue from growing. A client whose SYN is dropped retries after a second; it then
    finds the port closed or another listener. Returns False if the kernel has no such filter: a
    connection made at the last moment may then be reset.
    """
    instructions = ctypes.create_string_buffer(_DROP_NEW)
    program = struct.pack("HL", len(_DROP_NEW) // 8, ctypes.addressof(instructions))
    try:
        for listener in sockets:
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return False
    return True


def open_standard_streams() -> None:
    """Open those that the process was started without, here and for its workers.

    Else the next socket takes the number of standard error, and gets what others write to it.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)


def signal_with_parent(number: signal.Signals) -> bool:
    """Have the kernel send this process the signal when its parent dies. False except on Linux.

    A worker whose supervisor was killed must not hold the port.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None or prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0):
        return False
    parent = multiprocessing.parent_process()
    # The parent may have died before the prctl call.
    if parent is not None and not parent.is_alive():
        os.kill(os.getpid(), number)
    return True


def raise_open_files_limit() -> int:
    """Raise this process's limit of open files as far as permitted, and return it.

    The usual default of 1024 is for programs that call `select`, which uvloop never does.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        # macOS permits less than it names.
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most


def address_to_listen_on(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """The family and address for `bind`; of a name the IPv4 address, if it has one.

    `host`: None or empty for every address. Raises OSError.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except ValueError:  # a name that IDNA does not permit, or with a NUL
        raise socket.gaierror(socket.EAI_NONAME, "no name can have this form") from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address
