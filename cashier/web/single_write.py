"""An answer's head and body in one write. uvicorn writes each apart, and uvloop makes each a system call of its own."""

from __future__ import annotations

import asyncio

_CONTINUE = b"HTTP/1.1 100 Continue"


class SingleWrite:
    """Stands before the transport of one answer. The first write, the head, waits for the second, or for the end of the loop's turn."""

    __slots__ = ("_begun", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._begun = False

    def write(self, data: bytes) -> None:
        if self._begun:
            head, self._head = self._head, b""
            self._transport.write(head + data if head else data)
        elif data.startswith(_CONTINUE):
            self._transport.write(data)
        else:
            self._begun = True
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
