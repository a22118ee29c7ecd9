"""A consultation as server-sent events: `answer` as often as there is a better one, then `end`. Who wants that, and how it is written.

It may come out late (a slow reader), never in a heap: the next answer is asked for when the one before is off our hands, and by then it
is the newest one. How a request is read and refused is not known here.
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
    """Whether a value of Accept names event streams, and not to rule them out (`q=0`). `*/*` takes what there is, which is JSON."""
    if accept is None or EVENT_STREAM not in (lowered := accept.lower()):
        return False
    for one in lowered.split(b","):
        kind, *terms = (part.strip() for part in one.split(b";"))
        if kind == EVENT_STREAM:
            return not any(term.startswith(b"q=") and not term[2:].strip(b"0.") for term in terms)
    return False


class ConsultationStream:
    """A stream whose first answer is there: from here on it is an event stream, and whatever goes wrong has to be told in it."""

    __slots__ = ("_consultations", "_first", "_identity")

    def __init__(self, first: Consultation, consultations: AsyncGenerator[Consultation, None], identity: str) -> None:
        self._first = first
        self._consultations = consultations
        self._identity = identity

    @classmethod
    async def begun(cls, consultations: AsyncGenerator[Consultation, None], identity: str) -> Self:
        """Waits for the first answer. What is raised instead of it may still be answered as a problem. `identity`: of the request."""
        return cls(await anext(consultations), consultations, identity)

    async def tell(self, send: Send, visit: WatchedRequest, began_ns: int) -> None:
        """Send everything, until the end or until the client has gone or stopped reading; then the consultation ends too."""
        timing = server_timing((perf_counter_ns() - began_ns) / 1e6, self._first.sources)
        await send_events(self._events(), send, visit, self._identity, timing)

    async def _events(self) -> AsyncGenerator[bytes, None]:
        seq, consultation = 1, self._first
        async with aclosing(self._consultations):
            yield encode_event(b"answer", encode_numbered_consultation(seq, consultation), seq)
            try:
                async for consultation in self._consultations:
                    seq += 1
                    yield encode_event(b"answer", encode_numbered_consultation(seq, consultation), seq)
            except Exception:  # noqa: BLE001 - whatever it is, it is our bug, the client has to be told, and its text must not leave the house
                _log.exception("consultation failed in its stream", request_id=self._identity)
                fault = make_problem(
                    ProblemCode.INTERNAL, "The consultation failed. The log has it under this request id."
                )
                yield encode_event(b"error", encode_problem(fault))
            else:
                yield encode_event(b"end", json.encode({"seq": seq, "reason": _reason(consultation)}))


def _reason(last: Consultation) -> str:
    """DEADLINE: a source was given up because time was up, the consultation's or its own. COMPLETE: there was nothing more to learn."""
    given_up = last.blocked is None and any(source.status in _OUT_OF_TIME for source in last.sources)
    return "DEADLINE" if given_up else "COMPLETE"
