"""One connection to a Valkey server: commands leave in order, and replies come in that order.

All commands of one turn of the event loop leave in one write, so that the reads of a consultation
share a round trip. A command is a callback: it needs no task and no timer. Callers set timeouts; a
command whose caller no longer waits keeps its place in the order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias, cast

from cashier.fanout.l2.resp import MalformedReplyError, Reply, ReplyParser, ResponseError

# Faults of a server or a network. Anything else is a bug.
FAULTS = (ResponseError, OSError)

# Takes the reply, or the fault that ended the connection before it.
OnReply: TypeAlias = Callable[[Reply], None]
# Takes a message of the channel.
OnMessage: TypeAlias = Callable[[bytes], None]


class ValkeyConnection(asyncio.Protocol):
    """`on_message`: for a subscription. An error that it raises ends the connection.

    `overdue`: the number of replies that are late, and may still come.
    """

    def __init__(self, on_message: OnMessage | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._parser = ReplyParser()
        self._waiting: deque[OnReply] = deque()
        self._unsent: list[bytes] = []  # of this turn
        self._transport: asyncio.Transport | None = None
        self._fault: OSError = ConnectionError("the connection was closed")
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.overdue = 0

    def __repr__(self) -> str:
        return f"<ValkeyConnection {'closed' if self.closed else 'open'} waiting={len(self._waiting)}>"

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def send(self, packed: bytes, on_reply: OnReply) -> None:
        """Send a command with the others of this turn.

        `on_reply` is called once, after this returns.
        """
        if self.closed:
            self._loop.call_soon(on_reply, self._fault)
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(packed)
        self._waiting.append(on_reply)

    async def ask(self, *commands: bytes) -> list[Reply]:
        """Send commands together. Return their replies, refusals included. Raises OSError."""
        replies: list[Reply] = []
        done: asyncio.Future[list[Reply]] = self._loop.create_future()

        def take(reply: Reply) -> None:
            replies.append(reply)
            if len(replies) == len(commands) and not done.done():
                done.set_result(replies)

        for each in commands:
            self.send(each, take)
        for reply in await done:
            if isinstance(reply, OSError):
                raise reply
        return replies

    async def ends_within(self, timeout_s: float) -> bool:
        await asyncio.wait([self._ended], timeout=timeout_s)
        return self._ended.done()

    def close(self) -> None:
        """End it now. Callers that wait get the fault in the next turn."""
        if self._transport is not None:
            self._transport.abort()
        elif not self._ended.done():  # it was never open
            self._ended.set_result(None)

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data, self._take)
        except MalformedReplyError as fault:
            self._fault = fault
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, OSError):
            self._fault = error
        if not self._ended.done():
            self._ended.set_result(None)
        self._unsent.clear()
        while self._waiting:
            self._deliver(self._fault)

    def _take(self, reply: Reply) -> None:
        if self.closed:
            return
        if self._on_message is not None and isinstance(reply, list) and reply[:1] == [b"message"]:
            if len(reply) != 3 or not isinstance(reply[2], bytes):
                raise MalformedReplyError("no message")
            self._on_message(reply[2])
        elif self._waiting:
            self._deliver(reply)
        else:
            raise MalformedReplyError("a reply to no command")

    def _deliver(self, reply: Reply) -> None:
        """A caller's bug must not cost the other callers their replies."""
        try:
            self._waiting.popleft()(reply)
        except Exception as bug:  # noqa: BLE001 - reported
            self._loop.call_exception_handler(
                {"message": "cashier: a reader of the shared cache failed", "exception": bug}
            )

    def _flush(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()
