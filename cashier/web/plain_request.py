"""Plain: what most requests for a consultation are, one whole message with nothing unusual about it. Searched, not parsed.

Decides nothing. Whatever is in the least unusual is not plain and goes to the parser, which settles what it means.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = b"POST /v1/consult HTTP/1.1\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,6})[ \t]*\r\n")
# RFC 9110, section 5: what a name is made of, and a value.
_IN_NAMES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_IN_VALUES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))


class PlainRequest(NamedTuple):
    """One whole, plain request for a consultation. `head` is in lower case, `data` as it came; the body begins at `body`."""

    head: bytes
    data: bytes
    body: int

    def header(self, name: bytes) -> bytes | None:
        """Its value as it came; the first where there are several. `name` in lower case."""
        mark = b"\r\n" + name + b":"
        at = self.head.find(mark)
        if at < 0:
            return None
        begin = at + len(mark)
        return self.data[begin : self.head.find(b"\r\n", begin)].strip(b" \t")

    def headers(self) -> dict[bytes, bytes] | None:
        """All of them by name in lower case, the last where there are several. None where a line is none: a parser has to say so."""
        lines = self.data[len(_LINE) : self.body - 4].split(b"\r\n")
        if b"".join(lines).translate(None, _IN_VALUES):
            return None
        found = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name.translate(None, _IN_NAMES):
                return None
            found[name.lower()] = value.strip(b" \t")
        return found


def parse_plain_request(data: bytes) -> PlainRequest | None:
    """What was received at once, where it is exactly one whole request for a consultation with nothing unusual about it."""
    if not data.startswith(_LINE):
        return None
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[: end + 2].lower()
    # What makes more of a request than a head and a body. One by one, because a loop would cost as much as all of them.
    if b"transfer-encoding" in head or b"\nexpect" in head or b"\nupgrade" in head or b"close" in head:
        return None
    # Where two could disagree about the length there is a parser to settle it.
    if head.count(b"content-length") != 1:
        return None
    length = _LENGTH.search(head)
    if length is None or end + 4 + int(length[1]) != len(data):
        return None
    return PlainRequest(head, data, end + 4)
