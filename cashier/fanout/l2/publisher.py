"""Sends a worker's invalidations: published first, then written to the store, then confirmed."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from itertools import islice

from cashier.fanout.l2.invalidation import QueuedInvalidation, messages
from cashier.fanout.l2.outbox import Outbox, OutgoingInvalidation
from cashier.fanout.l2.resp import ReadOnlyError, Reply, ResponseError, command
from cashier.fanout.l2.valkey_backend import CHANNEL, ValkeySettings, invalidating_commands, new_token
from cashier.fanout.l2.valkey_client import ValkeyClient
from cashier.fanout.l2.valkey_connection import FAULTS, ValkeyConnection

# Sent in one round trip. Each costs the server the same few operations.
_BATCH = 100


class InvalidationPublisher:
    """Sends between `connected` and `disconnected`, or a failure; keeps the rest for later.

    An invalidation is confirmed when the server has accepted its message, invalidated what it
    stores, and sent the message to our own subscription: then the subscriptions of the other
    workers, on the same server, were sent it too.

    `on_fault` takes the fault that ended sending.
    """

    def __init__(self, worker_id: bytes, settings: ValkeySettings, on_fault: Callable[[BaseException], None]) -> None:
        self._worker_id = worker_id
        self._settings = settings
        self._on_fault = on_fault
        self._outbox = Outbox(settings.writes)
        self._sent: dict[bytes, OutgoingInvalidation] = {}  # by token, the oldest first
        self._client: ValkeyClient | None = None  # None while nothing can be sent
        self._epoch = ""
        self._work, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<InvalidationPublisher {self._outbox!r} unconfirmed={len(self._sent)}>"

    def add(
        self, invalidation: QueuedInvalidation, *, publish: bool = True, waiter: Future[bool] | None = None
    ) -> None:
        """Queue an invalidation. `waiter` gets True when it is confirmed."""
        self._outbox.add(invalidation, publish=publish, waiter=waiter)
        self._idle.clear()
        self._work.set()

    def connected(self, client: ValkeyClient, epoch: str) -> None:
        self._client, self._epoch = client, epoch
        self._work.set()

    def disconnected(self) -> None:
        """Queue again all that is not confirmed."""
        self._client = None
        unconfirmed, self._sent = list(self._sent.values()), {}
        self._outbox.requeue(unconfirmed)

    def returned(self, token: bytes) -> None:
        """Our own message came back on our subscription."""
        outgoing = self._sent.get(token)
        if outgoing is not None:
            outgoing.returned = True
            self._settle(token, outgoing)

    def overdue(self, now_s: float) -> bool:
        """Whether an accepted message is missing: our subscription is at another server."""
        oldest = next(iter(self._sent.values()), None)
        return oldest is not None and oldest.stored and now_s - oldest.sent_s > self._settings.command_ms / 1000

    async def flush(self, timeout_s: float) -> dict[str, int]:
        """Wait until all is confirmed. Return the number of the others by source."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            self.disconnected()
        return self._outbox.by_source()

    async def run(self) -> None:
        while True:
            if self._client is not None and len(self._outbox):
                await self._send(self._client.background, self._outbox.take(_BATCH))
            else:
                self._work.clear()
                await self._work.wait()

    async def _send(self, connection: ValkeyConnection, batch: Sequence[OutgoingInvalidation]) -> None:
        packed: list[bytes] = []
        # Token, numbers of messages and commands, key that is written.
        sent: list[tuple[bytes, int, int, bytes]] = []
        now_s = asyncio.get_running_loop().time()
        for outgoing in batch:
            token = new_token()
            outgoing.sent_s, outgoing.stored, outgoing.returned = now_s, False, False
            self._sent[token] = outgoing
            what = outgoing.invalidation
            commands, key = invalidating_commands(self._epoch, what, token)
            published = messages(self._worker_id, what, token) if outgoing.publish else []
            packed += [command("PUBLISH", CHANNEL, message) for message in published] + commands
            sent.append((token, len(published), len(commands), key))
        try:
            async with asyncio.timeout(self._settings.command_ms / 1000):
                replies = iter(await connection.ask(*packed))
                for outgoing, (token, sent_messages, count, key) in zip(batch, sent, strict=True):
                    refusals = [reply for reply in islice(replies, sent_messages) if isinstance(reply, ResponseError)]
                    await self._accept(connection, token, outgoing, refusals, list(islice(replies, count)), key)
        except FAULTS as fault:
            self._fail(fault)

    async def _accept(
        self,
        connection: ValkeyConnection,
        token: bytes,
        outgoing: OutgoingInvalidation,
        refusals: list[ResponseError],
        stored: Sequence[Reply],
        key: bytes,
    ) -> None:
        """Judge the replies to one invalidation. Raises what makes all others pointless too.

        `refusals`: of its messages. `stored`: the replies to its commands, which write `key`.
        """
        if any(isinstance(reply, ResponseError) for reply in stored):
            # Out of memory, perhaps: a deletion needs none, and invalidates as much or more.
            (deleted,) = await connection.ask(command("UNLINK", key))
            if isinstance(deleted, ReadOnlyError):
                raise deleted
            if isinstance(deleted, ResponseError):
                refusals.append(deleted)
        if refusals:  # sending it again to this server is of no use
            outgoing.publish, outgoing.waiters = False, []
        outgoing.stored = True
        self._settle(token, outgoing)

    def _settle(self, token: bytes, outgoing: OutgoingInvalidation) -> None:
        if outgoing.confirmed:
            self._sent.pop(token, None)
            outgoing.resolve()
            if not self._sent and not len(self._outbox):
                self._idle.set()

    def _fail(self, fault: BaseException) -> None:
        self.disconnected()
        self._on_fault(fault)
