"""Writes the head and the body of a response in one call.

uvicorn writes each separately, and uvloop turns each write into a system call.
"""

from __future__ import annotations

import asyncio

_CONTINUE = b"HTTP/1.1 100 Continue"


class SingleWrite:
    """Wraps the transport for one response.

    Holds the first write, the head, until the second write or the end of the loop iteration.
    """

    __slots__ = ("_head", "_started", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._started = False

    def write(self, data: bytes) -> None:
        if self._started:
            head, self._head = self._head, b""
            self._transport.write(head + data if head else data)
        elif data.startswith(_CONTINUE):
            self._transport.write(data)
        else:
            self._started = True
            self._head = data
            asyncio.get_running_loop().call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)
