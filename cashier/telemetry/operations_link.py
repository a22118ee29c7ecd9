"""The link of a worker to the operations port's process: messages over a local stream socket.

A frame is its length, four bytes with the most significant first, and a message as JSON. Nothing is
sent back. The worker never waits for the other side: what that does not take is dropped and
counted. No listener is no fault; the link tries again every second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from pathlib import Path
from typing import TypeAlias

import anyio
import msgspec

from cashier.metrics.store import Store
from cashier.payments.step_feed import PaymentStep
from cashier.telemetry.records import ConsultationRecord
from cashier.telemetry.worker_state import WorkerState

# What a worker sends. The field `type` tells them apart.
Message: TypeAlias = ConsultationRecord | PaymentStep | WorkerState
SOCKET_NAME = "ops.sock"
HEADER_BYTES = 4
# No message is larger.
MOST_FRAME_BYTES = 1 << 20
# What waits for the other side, and what the kernel's buffer has not taken.
MOST_QUEUED_BYTES = 1 << 20
_UNSENT_BYTES = 1 << 16
RETRY_S = 1.0
_FLUSH_S = 0.2


class OperationsLink:
    """One link. `run` connects and sends until it is cancelled."""

    def __init__(self, directory: Path, metrics: Store) -> None:
        """`directory`: the run directory."""
        self._path = directory / SOCKET_NAME
        self._encoder = msgspec.json.Encoder()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._state: bytes | None = None
        self._wake = asyncio.Event()
        self._unsent = metrics.counter("cashier_consultation_records_total", "unsent")

    def __repr__(self) -> str:
        return f"<OperationsLink {self._path}, {self._queued_bytes} bytes queued>"

    def send_record(self, body: bytes) -> None:
        """Queue a record or a step as JSON. Without room for it, it is dropped and counted."""
        frame = _frame(body)
        if frame is None or self._queued_bytes + len(frame) > MOST_QUEUED_BYTES:
            self._unsent.add()
            return
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._wake.set()

    def send_state(self, state: WorkerState) -> None:
        """Replace the state that has not been sent: an older one is of no use."""
        self._state = _frame(self._encoder.encode(state))
        self._wake.set()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                writer.transport.set_write_buffer_limits(_UNSENT_BYTES)
                tasks = asyncio.create_task(self._write(writer)), asyncio.create_task(reader.read(1))
                try:
                    # The other side sends nothing: a read ends when it has gone.
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    # A cancelled scope of anyio would cancel each wait anew.
                    with anyio.CancelScope(shield=True):
                        await asyncio.gather(*tasks, return_exceptions=True)
                        await self._close(writer)
            await asyncio.sleep(RETRY_S)

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        """Write what comes. Raises OSError if the other side has gone."""
        while True:
            while (frame := self._next()) is not None:
                writer.write(frame)
                await writer.drain()
            self._wake.clear()
            await self._wake.wait()

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        """Also at the end of the service: hand over what is queued, if the other side takes it."""
        while not writer.transport.is_closing() and (frame := self._next()) is not None:
            writer.write(frame)
        writer.close()
        try:
            await asyncio.wait_for(writer.wait_closed(), _FLUSH_S)
        except (OSError, TimeoutError):
            writer.transport.abort()

    def _next(self) -> bytes | None:
        frame, self._state = self._state, None
        if frame is None and self._queue:
            frame = self._queue.popleft()
            self._queued_bytes -= len(frame)
        return frame


def _frame(body: bytes) -> bytes | None:
    """None for a message beyond the bound."""
    return None if len(body) > MOST_FRAME_BYTES else len(body).to_bytes(HEADER_BYTES, "big") + body
