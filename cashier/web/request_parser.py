"""HTTP/1.1 requests by RFC 9112: bytes in, request heads and bodies out. No sockets, no clock.

The only parser of requests. It is stricter than llhttp and works on any buffered prefix, so what it
makes of a stream does not depend on how the stream was split into segments. Lines end with CRLF
only, folded lines and spaces before a colon are errors, and messages that two recipients could read
differently are refused rather than repaired.
"""

from __future__ import annotations

import re

from cashier.web.problem import ProblemCode

# Bytes of one message that are not its body: blank lines before it, its head, the framing of its
# chunks, its trailers.
HEAD_LIMIT_BYTES = 65_536
CHUNKED = -1
# A longer Content-Length is more than any client can send.
_MAX_LENGTH_DIGITS = 18

# RFC 9110, section 5: the characters of a header name and of a header value. Possessive
# quantifiers keep a mismatch linear.
_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_FIELD_LINE = _NAME + rb":[\t\x20-\x7e\x80-\xff]*+\r\n"
_HEAD = re.compile(rb"(" + _NAME + rb""") ([!"$-~]++) HTTP/1\.([0-9])\r\n((?:""" + _FIELD_LINE + rb")*+)\r\n")
# Of lines that match `_FIELD_LINE`.
_NAMES = re.compile(rb"([^:]++):.*\n")
_VALUES = re.compile(rb":[ \t]*+(.*)\r\n")
_TRAILER = re.compile(_FIELD_LINE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
# No head contains these, so a head with one of them is refused before it is complete.
_ILLEGAL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
# RFC 9110, section 7.2: `uri-host [":" port]`, and empty for a target without an authority.
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%\-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?", re.ASCII)
# No user name or password (RFC 9110, section 4.2.4).
_ABSOLUTE_FORM = re.compile(rb"https?://[^/?@]++(?!@)", re.IGNORECASE)
# A second line of one of these changes what the message means, or who sent it.
_SINGLETONS = (b"host", b"content-length", b"transfer-encoding", b"authorization", b"origin")
# W3C Trace Context, section 3.3.1: several lines are one list.
_LIST = b"tracestate"


class ProtocolError(Exception):
    """The stream is not HTTP/1.1 or exceeds a limit. Nothing after it can be understood."""

    def __init__(self, code: ProblemCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class RequestHead:
    """`fields`: the last value of each header by lower-case name; of `tracestate` all of them.

    `target` is in origin form, or `*`. `length` of the body in bytes, or `CHUNKED`.
    """

    __slots__ = (
        "_names",
        "_values",
        "expects_continue",
        "fields",
        "http_1_0",
        "keep_alive",
        "length",
        "method",
        "target",
    )

    def __init__(self, method: bytes, target: bytes, names: list[bytes], values: list[bytes], http_1_0: bool) -> None:
        """Raises `ProtocolError`."""
        self.method = method
        self._names = names
        self._values = values
        self.fields = fields = dict(zip(names, values, strict=True))
        self.http_1_0 = http_1_0
        if len(fields) != len(names):
            if any(names.count(name) > 1 for name in _SINGLETONS):
                raise _malformed("A header that may occur once occurs more often.")
            if names.count(_LIST) > 1:
                self._join_list()
        self.target = target if target[:1] == b"/" else self._origin_form(target)
        if not _HOST.fullmatch(fields[b"host"]) if b"host" in fields else not http_1_0:
            raise _malformed("The request needs one valid Host header.")
        self.length = 0
        if b"content-length" in fields:
            length = fields[b"content-length"]
            if not length.isdigit():
                raise _malformed("Content-Length is not a number.")
            self.length = int(length) if len(length) <= _MAX_LENGTH_DIGITS else _parse_long_length(length)
        if b"transfer-encoding" in fields:
            if fields[b"transfer-encoding"].lower() != b"chunked" or b"content-length" in fields or http_1_0:
                raise _malformed("The length of the body is ambiguous.")
            self.length = CHUNKED
        # The keep-alive of HTTP/1.0 is optional, and proxies get it wrong.
        self.keep_alive = not http_1_0 and (b"connection" not in fields or not self._closes())
        self.expects_continue = (
            b"expect" in fields and fields[b"expect"].lower() == b"100-continue" and self.length != 0 and not http_1_0
        )

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All headers in their order."""
        return list(zip(self._names, self._values, strict=True))

    def _join_list(self) -> None:
        lines = self.headers
        self.fields[_LIST] = b",".join(value for name, value in lines if name == _LIST)
        others = [line for line in lines if line[0] != _LIST]
        self._names = [*(name for name, _ in others), _LIST]
        self._values = [*(value for _, value in others), self.fields[_LIST]]

    def _origin_form(self, target: bytes) -> bytes:
        absolute = _ABSOLUTE_FORM.match(target)
        if absolute is not None and self.method != b"CONNECT":
            target = target[absolute.end() :]
            return target if target.startswith(b"/") else b"/" + target
        if target == b"*" and self.method == b"OPTIONS":
            return target
        raise _malformed("The request target is not supported.")

    def _closes(self) -> bool:
        return any(
            option.strip(b" \t").lower() == b"close"
            for name, value in zip(self._names, self._values, strict=True)
            if name == b"connection"
            for option in value.split(b",")
        )


def parse_head(
    data: bytes | bytearray, begin: int, searched: int, limit: int = HEAD_LIMIT_BYTES
) -> tuple[RequestHead, int] | None:
    """The head that starts at `begin`, and its end. None while it is incomplete.

    No head ends before `searched`. Raises `ProtocolError`: for an illegal byte among the first
    `limit` bytes, for more than `limit` bytes, for a head that is not valid.
    """
    end = data.find(b"\r\n\r\n", begin if searched <= begin else max(begin, searched - 3)) + 4
    if not 4 <= end <= begin + limit:
        if _ILLEGAL.search(data, max(begin, searched - 1), begin + limit):
            raise _malformed("The request is not HTTP/1.1.")
        if len(data) > begin + limit:
            raise _too_large()
        return None
    match = _HEAD.match(data, begin, end)
    if match is None:
        raise _malformed("The request is not HTTP/1.1.")
    method, target, minor, lines = match.groups()
    values = _VALUES.findall(lines)
    if b" \r" in lines or b"\t\r" in lines:
        values = [value.rstrip(b" \t") for value in values]
    return RequestHead(method, target, _NAMES.findall(lines.lower()), values, minor == b"0"), end


class ChunkedBody:
    """Decodes one chunked body. Trailers are checked and dropped: they are never headers.

    At most `budget` bytes may be anything but data. `complete` or `fault` is set at the end.
    """

    __slots__ = ("_budget", "_left", "_take_line", "complete", "fault")

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._left = 0
        self._take_line = ChunkedBody._take_size
        self.complete = False
        self.fault: ProtocolError | None = None

    def feed(self, data: bytes | bytearray, at: int) -> tuple[bytes, int]:
        """Data decoded from `at` on, and the offset of the first byte that was not used.

        Data before a fault is returned.
        """
        pieces = []
        try:
            while not self.complete:
                if self._left:
                    piece = bytes(data[at : at + self._left])
                    if not piece:
                        break
                    pieces.append(piece)
                    at += len(piece)
                    self._left -= len(piece)
                    continue
                end = data.find(b"\n", at) + 1
                if (end or len(data)) - at > self._budget:
                    raise _too_large()
                if not end:
                    break
                self._budget -= end - at
                self._take_line(self, bytes(data[at:end]))
                at = end
        except ProtocolError as fault:
            self.fault = fault.with_traceback(None)
        return b"".join(pieces), at

    def _take_size(self, line: bytes) -> None:
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise _malformed("A chunk size is invalid.")
        self._left = int(match[1], 16)
        self._take_line = ChunkedBody._take_data_end if self._left else ChunkedBody._take_trailer

    def _take_data_end(self, line: bytes) -> None:
        if line != b"\r\n":
            raise _malformed("A chunk is longer than its size.")
        self._take_line = ChunkedBody._take_size

    def _take_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.complete = True
        elif not _TRAILER.fullmatch(line):
            raise _malformed("A trailer is invalid.")


def _parse_long_length(value: bytes) -> int:
    digits = value.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= _MAX_LENGTH_DIGITS else 10**_MAX_LENGTH_DIGITS


def _malformed(detail: str) -> ProtocolError:
    return ProtocolError(ProblemCode.MALFORMED, detail)


def _too_large() -> ProtocolError:
    return ProtocolError(
        ProblemCode.HEADERS_TOO_LARGE, f"The request line and headers must not exceed {HEAD_LIMIT_BYTES} bytes."
    )
