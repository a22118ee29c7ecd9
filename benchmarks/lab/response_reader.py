"""Find the end and the status of an HTTP response, which is all that the load has to read.

Supports Content-Length and chunks. A response with neither is an error: no peer sends one.
"""

from __future__ import annotations


class ResponseReader:
    """One response, fed in pieces."""

    __slots__ = ("_body_at", "_chunk_at", "_missing", "_parts", "status")

    def __init__(self) -> None:
        self.status = 0
        self._parts: list[bytes] = []
        self._missing = 0
        self._body_at = 0
        # Offset of the next chunk size, for chunked responses.
        self._chunk_at = 0

    def feed(self, data: bytes) -> bool:
        """Return True when the response is complete.

        Raises `ValueError` if it is not HTTP/1.1 or longer than declared.
        """
        self._parts.append(data)
        if self._chunk_at:
            return self._chunks_complete()
        if not self._body_at:
            return self._read_head()
        return self._count_body(len(data))

    def body(self) -> bytes:
        """The body of a complete response, chunks joined."""
        response = b"".join(self._parts)
        if not self._chunk_at:
            return response[self._body_at :]
        body, at = b"", self._body_at
        while size := _chunk_size(response, at, start := response.index(b"\r\n", at)):
            body += response[start + 2 : start + 2 + size]
            at = start + size + 4
        return body

    def _read_head(self) -> bool:
        response = self._joined()
        end = response.find(b"\r\n\r\n")
        if end < 0:
            return False
        self.status = int(response[9:12])
        self._body_at = end + 4
        head = response[: end + 2].lower()
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self._missing = int(head[at + 17 : head.index(b"\r", at + 2)])
            return self._count_body(len(response) - self._body_at)
        if b"\r\ntransfer-encoding: chunked\r\n" not in head:
            raise ValueError(f"neither Content-Length nor chunks: {head!r}")
        self._chunk_at = self._body_at
        return self._chunks_complete()

    def _count_body(self, received: int) -> bool:
        self._missing -= received
        if self._missing < 0:
            raise ValueError(f"{-self._missing} bytes more than declared")
        return not self._missing

    def _chunks_complete(self) -> bool:
        response = self._joined()
        while (start := response.find(b"\r\n", self._chunk_at)) >= 0:
            size = _chunk_size(response, self._chunk_at, start)
            if not size:
                return response.find(b"\r\n\r\n", start) >= 0
            if start + size + 4 > len(response):
                return False
            self._chunk_at = start + size + 4
        return False

    def _joined(self) -> bytes:
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]


def _chunk_size(response: bytes, start: int, end: int) -> int:
    """Parse a chunk size, without chunk extensions."""
    return int(response[start:end].partition(b";")[0], 16)
