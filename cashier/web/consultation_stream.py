"""A consultation as server-sent events: `answer` for each better consultation, then `end`.

For a slow reader intermediate consultations are skipped: the next one is requested only after the
previous event has been sent, and is then the newest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import perf_counter_ns
from typing import Self

import structlog
from msgspec import json
from starlette.types import Send

from cashier.consultation.flow import Consultation
from cashier.fanout.ask import SourceStatus
from cashier.web.codec import encode_numbered_consultation, server_timing
from cashier.web.disconnect_watch import WatchedRequest
from cashier.web.problem import ProblemCode, encode_problem, make_problem
from cashier.web.sse import EVENT_STREAM, encode_event, send_events

_log = structlog.get_logger("cashier.web")

_OUT_OF_TIME = (SourceStatus.TIMEOUT, SourceStatus.SKIPPED)


def accepts_event_stream(accept: bytes | None) -> bool:
    """Whether an Accept value names event streams, and not with `q=0`. `*/*` accepts JSON."""
    if accept is None or EVENT_STREAM not in (lowered := accept.lower()):
        return False
    for media_range in lowered.split(b","):
        media_type, *parameters = (part.strip() for part in media_range.split(b";"))
        if media_type == EVENT_STREAM:
            return not any(parameter.startswith(b"q=") and not parameter[2:].strip(b"0.") for parameter in parameters)
    return False


class ConsultationStream:
    """A stream whose first consultation is known. Later errors can only be sent as an event."""

    __slots__ = ("_consultations", "_first", "_request_id")

    def __init__(self, first: Consultation, consultations: AsyncGenerator[Consultation, None], request_id: str) -> None:
        self._first = first
        self._consultations = consultations
        self._request_id = request_id

    @classmethod
    async def start(cls, consultations: AsyncGenerator[Consultation, None], request_id: str) -> Self:
        """Wait for the first consultation. An exception before it becomes a problem response."""
        return cls(await anext(consultations), consultations, request_id)

    async def send(self, send: Send, watched: WatchedRequest, started_ns: int) -> None:
        """Send all events. Ends the consultation if the client disconnects or stops reading."""
        timing = server_timing((perf_counter_ns() - started_ns) / 1e6, self._first.sources)
        await send_events(self._events(), send, watched, self._request_id, timing)

    async def _events(self) -> AsyncGenerator[bytes, None]:
        seq, consultation = 1, self._first
        async with aclosing(self._consultations):
            yield encode_event(b"answer", encode_numbered_consultation(seq, consultation), seq)
            try:
                async for consultation in self._consultations:
                    seq += 1
                    yield encode_event(b"answer", encode_numbered_consultation(seq, consultation), seq)
            except Exception:  # noqa: BLE001 - a bug of this service: reported to the client without its text
                _log.exception("consultation failed in its stream", request_id=self._request_id)
                problem = make_problem(
                    ProblemCode.INTERNAL, "The consultation failed. See the log under this request id."
                )
                yield encode_event(b"error", encode_problem(problem))
            else:
                yield encode_event(b"end", json.encode({"seq": seq, "reason": _reason(consultation)}))


def _reason(last: Consultation) -> str:
    """DEADLINE: a source ran out of time. COMPLETE: nothing more can change."""
    out_of_time = last.blocked is None and any(source.status in _OUT_OF_TIME for source in last.sources)
    return "DEADLINE" if out_of_time else "COMPLETE"
