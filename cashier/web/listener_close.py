"""How a listening socket ends without losing who is at the door."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable

# Classic BPF over the TCP header: byte 13 holds the flags; SYN (0x02) without ACK (0x10) is dropped, all else passes.
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


def refuse_new_connections(sockets: Iterable[socket.socket]) -> bool:
    """From here on nobody new gets to connect, while those who already have, or are in the handshake, can still be accepted.

    Closing a listening socket resets every connection that waits in its queue, and there is no other way to stop the queue from growing.
    A client whose SYN is dropped sends it again after a second, and is then refused cleanly or reaches somebody else. False where
    the kernel has no such filter: then a connection that is made in the last moment may be reset.
    """
    program = ctypes.create_string_buffer(_DROP_NEW)
    described = struct.pack("HL", len(_DROP_NEW) // 8, ctypes.addressof(program))
    try:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except OSError:
        return False
    return True
