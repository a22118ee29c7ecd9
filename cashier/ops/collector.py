"""Collects what workers report: records of consultations, steps of payments, and their state.

It listens on a socket in the private run directory, and takes connections of its own user only. A
peer that breaks the protocol is disconnected; nothing that it sent affects the others. All is lost
on a restart of the service.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from cashier.ops.record_store import RecordStore
from cashier.payments.step_feed import PaymentStep
from cashier.telemetry.operations_link import HEADER_BYTES, MOST_FRAME_BYTES, SOCKET_NAME, Message
from cashier.telemetry.worker_state import WorkerState

_log = structlog.get_logger("cashier.ops")

# Many more than workers: a replaced worker and its successor may both be connected.
MOST_CONNECTIONS = 1_024
_PEER_CREDENTIALS = struct.Struct("3i")  # process, user and group id


@asynccontextmanager
async def collecting(directory: Path | None, records: RecordStore) -> AsyncIterator[None]:
    """Take messages of workers until the end. Without a place to listen, warn and go on."""
    if directory is None:
        yield
        return
    collector = _Collector(records)
    try:
        server = await asyncio.start_unix_server(
            collector.connected, str(directory / SOCKET_NAME), limit=MOST_FRAME_BYTES
        )
    except OSError as error:
        _log.warning("operators see no records: no socket for the workers", reason=error.strerror or str(error))
        yield
        return
    try:
        yield
    finally:
        server.close()
        await collector.close()


class _Collector:
    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self._decoder = msgspec.json.Decoder(Message)
        self._serving: set[asyncio.Task[None]] = set()
        self._closed = False

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed or len(self._serving) >= MOST_CONNECTIONS or not _is_own_user(writer):
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        # Not in the task, which an end may cancel before it has run.
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one worker's messages until it leaves."""
        pids: set[int] = set()
        try:
            await self._read(reader, pids)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the worker has ended, perhaps in the middle of a message
        except (ValueError, RecursionError) as error:
            # The text of a message may be in the error's, so only its type is logged.
            _log.warning("a connection to the collector of records broke the protocol", error=type(error).__name__)
        finally:
            for pid in pids:
                self._records.worker_left(pid)

    async def _read(self, reader: asyncio.StreamReader, pids: set[int]) -> None:
        while True:
            size = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
            if size > MOST_FRAME_BYTES:
                raise ValueError("a message beyond the bound")
            body = await reader.readexactly(size)
            message = self._decoder.decode(body)
            if isinstance(message, WorkerState):
                pids.add(message.pid)
                self._records.put_state(message)
            elif isinstance(message, PaymentStep):
                self._records.steps.put(message.payment_id, body)
            else:
                self._records.put_record(message, body)

    async def close(self) -> None:
        self._closed = True
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


def _is_own_user(writer: asyncio.StreamWriter) -> bool:
    peer = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    return bool(_PEER_CREDENTIALS.unpack(credentials)[1] == os.getuid())
