"""RESP 2, the protocol of Valkey and Redis: commands to bytes, bytes to replies. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from msgspec import Struct

from cashier.fanout.l2.entry_codec import LARGEST_BYTES

# Bounds of one reply, beyond all that we ask for. The longest line is the text of an error.
LARGEST_REPLY = LARGEST_BYTES + 65_536
LONGEST_LINE = 8192
DEEPEST_LIST = 8
_LONGEST_NUMBER = 10

_LINE_END = b"\r\n"
_TEXT, _LIST, _INTEGER, _STATUS, _ERROR = b"$*:+-"


class ResponseError(Exception):
    """The server works, and refuses this command: the text says why."""


class ReadOnlyError(ResponseError):
    """The server is a replica."""


class NoScriptError(ResponseError):
    """The server does not have the script with this digest."""


class UnfitServerError(ConnectionError):
    """The server refuses all commands: it is loading its data, or does not know us."""


class MalformedReplyError(ConnectionError):
    """Bytes that are no reply, or one beyond the bounds. What follows them has no meaning."""


_ERRORS: dict[bytes, type[ResponseError | UnfitServerError]] = {
    b"READONLY": ReadOnlyError,
    b"NOSCRIPT": NoScriptError,
    b"LOADING": UnfitServerError,
    b"NOAUTH": UnfitServerError,
    b"WRONGPASS": UnfitServerError,
}

# bytes, int, None, a ResponseError or UnfitServerError, or a list of replies.
Reply: TypeAlias = Any


def command(*parts: bytes | str | int) -> bytes:
    """The bytes of a command."""
    texts = [part if isinstance(part, bytes) else encoded(str(part)) for part in parts]
    return b"*%d\r\n%b" % (len(texts), arguments(*texts))


def arguments(*texts: bytes) -> bytes:
    """The bytes of parts of a command, without their number."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts])


def encoded(text: str) -> bytes:
    """Works for any text, and for no two texts alike."""
    return text.encode("utf-8", "surrogatepass")


class _ListStart(Struct, frozen=True):
    size: int


_INCOMPLETE: Final = object()


class ReplyParser:
    """Makes replies of bytes that come in pieces of any size.

    It keeps at most one incomplete reply, of at most `LARGEST_REPLY` bytes. Of what came, only an
    incomplete line is looked at twice.
    """

    __slots__ = ("_length", "_lists", "_needed", "_pieces", "_room")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of an incomplete element: of this length, and needed from that on
        self._length = self._needed = 0
        self._lists: list[tuple[list[Reply], int]] = []  # incomplete ones with their sizes, the outer first
        self._room = LARGEST_REPLY  # for the rest of the present reply

    def feed(self, data: bytes, take: Callable[[Reply], None]) -> None:
        """Call `take` with each reply that is complete now.

        Raises MalformedReplyError, after which the parser is of no use.
        """
        if self._pieces:
            self._pieces.append(data)
            self._length += len(data)
            if self._length < self._needed:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        at, end = 0, len(data)
        while at < end:
            reply, after = _element(data, at)
            if after - at > self._room:
                raise MalformedReplyError("a reply is too large")
            if after > end:
                self._pieces.append(data[at:])
                self._length, self._needed = end - at, after - at
                return
            self._room -= after - at
            at = after
            if self._lists or type(reply) is _ListStart:
                reply = self._nest(reply)
                if reply is _INCOMPLETE:
                    continue
            self._room = LARGEST_REPLY
            take(reply)

    def _nest(self, element: Reply) -> Reply:
        """Put an element into the innermost list. Returns the outermost one once it is complete."""
        lists = self._lists
        if type(element) is _ListStart:
            if element.size > 0:
                if len(lists) == DEEPEST_LIST:
                    raise MalformedReplyError("lists are nested too deeply")
                lists.append(([], element.size))
                return _INCOMPLETE
            element = []
        while lists:
            elements, size = lists[-1]
            elements.append(element)
            if len(elements) < size:
                return _INCOMPLETE
            element = elements
            lists.pop()
        return element


def _element(data: bytes, at: int) -> tuple[Reply, int]:
    """The element that starts at `at`, and where it ends: beyond `data` if it is incomplete."""
    line_end = data.find(_LINE_END, at, at + LONGEST_LINE)
    if line_end < 0:
        if len(data) - at >= LONGEST_LINE:
            raise MalformedReplyError("a line is too long")
        return None, len(data) + 1
    kind, line, after = data[at], data[at + 1 : line_end], line_end + 2
    if kind in (_TEXT, _LIST):
        if line == b"-1":
            return None, after
        if not line.isdigit() or len(line) > _LONGEST_NUMBER:
            raise MalformedReplyError("no size")
        if kind == _LIST:
            return _ListStart(int(line)), after
        text_end = after + int(line)
        if data[text_end : text_end + 2] not in (_LINE_END, b"\r", b""):
            raise MalformedReplyError("a text does not end where it should")
        return data[after:text_end], text_end + 2
    if kind == _INTEGER:
        return _integer(line), after
    if kind == _STATUS:
        return line, after
    if kind == _ERROR:
        return _ERRORS.get(line.partition(b" ")[0], ResponseError)(line.decode("latin-1")), after
    raise MalformedReplyError("an unknown kind of reply")


def _integer(line: bytes) -> int:
    if len(line) > 20 or not line.removeprefix(b"-").isdigit():
        raise MalformedReplyError("no integer")
    return int(line)
