"""A consultation as server-sent events: `answer` as often as there is a better one, then `end`. Who wants that, and how it is written.

It may come out late (a slow reader), never in a heap: the next answer is asked for when the one before is off our hands, and by then it
is the newest one. How a request is read and refused is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import perf_counter_ns
from typing import Self

import structlog
from msgspec import json
from starlette.types import Send

from cashier.consult import Consultation
from cashier.fanout.ask import Status
from cashier.web.codec import encode_numbered, server_timing
from cashier.web.problem import Code, encode_problem, problem
from cashier.web.vigil import Visit

_log = structlog.get_logger("cashier.web")

EVENT_STREAM = b"text/event-stream"
# How long a reader may leave us no room for one event. Generous to a phone that changes its network; endless would be a way to tie us up.
STALL_S = 10.0
# The last is for nginx, which else keeps an answer back until it has enough of it.
_HEADERS = ((b"content-type", EVENT_STREAM), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
_OUT_OF_TIME = (Status.TIMEOUT, Status.SKIPPED)


def wants_events(accept: bytes | None) -> bool:
    """Whether a value of Accept names event streams, and not to rule them out (`q=0`). `*/*` takes what there is, which is JSON."""
    if accept is None or EVENT_STREAM not in (lowered := accept.lower()):
        return False
    for one in lowered.split(b","):
        kind, *terms = (part.strip() for part in one.split(b";"))
        if kind == EVENT_STREAM:
            return not any(term.startswith(b"q=") and not term[2:].strip(b"0.") for term in terms)
    return False


class Streaming:
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

    async def tell(self, send: Send, visit: Visit, began_ns: int) -> None:
        """Send everything, until the end or until the client has gone or stopped reading; then the consultation ends too."""
        try:
            async with aclosing(self._consultations):
                await self._tell(send, began_ns)
        except TimeoutError:
            _log.warning("the reader of a stream stalled", request_id=self._identity, seconds=STALL_S)
        except asyncio.CancelledError:
            if not visit.forgives():
                raise

    async def _tell(self, send: Send, began_ns: int) -> None:
        timing = server_timing((perf_counter_ns() - began_ns) / 1e6, self._first.sources)
        headers = [*_HEADERS, (b"x-request-id", self._identity.encode("ascii")), (b"server-timing", timing)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        seq, consultation, last_words = 0, self._first, b""
        while not last_words:
            seq += 1
            await _send(send, _event(b"answer", encode_numbered(seq, consultation), seq), more=True)
            try:
                better = await anext(self._consultations, None)
            except Exception:  # noqa: BLE001 - whatever it is, it is our bug, the client has to be told, and its text must not leave the house
                _log.exception("consultation failed in its stream", request_id=self._identity)
                fault = problem(Code.INTERNAL, "The consultation failed. The log has it under this request id.")
                last_words = _event(b"error", encode_problem(fault))
            else:
                if better is None:
                    last_words = _event(b"end", json.encode({"seq": seq, "reason": _reason(consultation)}))
                else:
                    consultation = better
        await _send(send, last_words, more=False)


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    async with asyncio.timeout(STALL_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})


def _event(name: bytes, told: bytes, seq: int | None = None) -> bytes:
    """JSON has no line break outside of its strings, and in them it is escaped, so it is one line of `data`."""
    return b"event: %b\n%bdata: %b\n\n" % (name, b"" if seq is None else b"id: %d\n" % seq, told)


def _reason(last: Consultation) -> str:
    """DEADLINE: a source was given up because time was up, the consultation's or its own. COMPLETE: there was nothing more to learn."""
    given_up = last.blocked is None and any(source.status in _OUT_OF_TIME for source in last.sources)
    return "DEADLINE" if given_up else "COMPLETE"
