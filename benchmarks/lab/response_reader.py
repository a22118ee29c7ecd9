"""Where an HTTP answer ends, and its status: all that a load has to read of one. Knows nothing of connections.

By Content-Length or in chunks; an answer with neither (one that ends with its connection, or 204) is refused: no peer here gives such.
"""

from __future__ import annotations


class ResponseReader:
    """One answer, as it comes."""

    __slots__ = ("_body_at", "_chunk_at", "_missing", "_parts", "status")

    def __init__(self) -> None:
        self.status = 0
        self._parts: list[bytes] = []
        self._missing = 0
        self._body_at = 0
        # Where the next chunk's size begins, in an answer that comes in chunks.
        self._chunk_at = 0

    def feed(self, data: bytes) -> bool:
        """True once it is whole. Raises `ValueError` where it is not HTTP/1.1, or longer than it said."""
        self._parts.append(data)
        if self._chunk_at:
            return self._chunks_end()
        if not self._body_at:
            return self._head()
        return self._less(len(data))

    def body(self) -> bytes:
        """Of a whole answer, chunks put together."""
        whole = b"".join(self._parts)
        if not self._chunk_at:
            return whole[self._body_at :]
        found, at = b"", self._body_at
        while size := _size(whole, at, start := whole.index(b"\r\n", at)):
            found += whole[start + 2 : start + 2 + size]
            at = start + size + 4
        return found

    def _head(self) -> bool:
        whole = self._joined()
        end = whole.find(b"\r\n\r\n")
        if end < 0:
            return False
        self.status = int(whole[9:12])
        self._body_at = end + 4
        head = whole[: end + 2].lower()
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self._missing = int(head[at + 17 : head.index(b"\r", at + 2)])
            return self._less(len(whole) - self._body_at)
        if b"\r\ntransfer-encoding: chunked\r\n" not in head:
            raise ValueError(f"neither a length nor chunks: {head!r}")
        self._chunk_at = self._body_at
        return self._chunks_end()

    def _less(self, came: int) -> bool:
        self._missing -= came
        if self._missing < 0:
            raise ValueError(f"{-self._missing} bytes more than it said")
        return not self._missing

    def _chunks_end(self) -> bool:
        whole = self._joined()
        while (start := whole.find(b"\r\n", self._chunk_at)) >= 0:
            size = _size(whole, self._chunk_at, start)
            if not size:
                return whole.find(b"\r\n\r\n", start) >= 0
            if start + size + 4 > len(whole):
                return False
            self._chunk_at = start + size + 4
        return False

    def _joined(self) -> bytes:
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]


def _size(whole: bytes, at: int, end: int) -> int:
    """Of a chunk, without what may be said of it after a semicolon."""
    return int(whole[at:end].partition(b";")[0], 16)
