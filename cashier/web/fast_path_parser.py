"""Recognizes a plain request: one complete consultation request with no unusual headers.

Searches bytes instead of parsing. Everything unusual is not plain and goes to the parser, which
settles what it means.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = b"POST /v1/consult HTTP/1.1\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,6})[ \t]*\r\n")
# RFC 9110, section 5: the characters of a header name and of a header value.
_NAME_CHARACTERS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUE_CHARACTERS = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))


class PlainRequest(NamedTuple):
    """`head` is in lower case, `data` is the request as received, `body` the offset of its body."""

    head: bytes
    data: bytes
    body: int

    def header(self, name: bytes) -> bytes | None:
        """The original value, the first if there are several. `name` must be in lower case."""
        mark = b"\r\n" + name + b":"
        at = self.head.find(mark)
        if at < 0:
            return None
        begin = at + len(mark)
        return self.data[begin : self.head.find(b"\r\n", begin)].strip(b" \t")

    def headers(self) -> dict[bytes, bytes] | None:
        """All headers by lower-case name, the last value of each. None if a line is no header."""
        lines = self.data[len(_LINE) : self.body - 4].split(b"\r\n")
        if b"".join(lines).translate(None, _VALUE_CHARACTERS):
            return None
        headers = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name.translate(None, _NAME_CHARACTERS):
                return None
            headers[name.lower()] = value.strip(b" \t")
        return headers


def parse_plain_request(data: bytes) -> PlainRequest | None:
    """None unless `data` is exactly one complete plain request."""
    if not data.startswith(_LINE):
        return None
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[: end + 2].lower()
    # Headers that change the framing or the connection. Unrolled: a loop would double the cost.
    if b"transfer-encoding" in head or b"\nexpect" in head or b"\nupgrade" in head or b"close" in head:
        return None
    # Two lengths could disagree, which the parser settles.
    if head.count(b"content-length") != 1:
        return None
    length = _LENGTH.search(head)
    if length is None or end + 4 + int(length[1]) != len(data):
        return None
    return PlainRequest(head, data, end + 4)
