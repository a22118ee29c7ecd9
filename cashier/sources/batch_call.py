"""The batch form of a source: one POST with the parameters of many questions, one answer with a part for each.

A part is judged as a call's answer of its own would be: what is wrong with one costs no other. What is wrong with the whole costs all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from cashier.fanout.ask import Known
from cashier.fanout.batch import BatchPolicy, OnBatchOutcomes, Outcome
from cashier.fanout.upstream import UpstreamCall
from cashier.source_errors import Garbled, SourceError
from cashier.sources.source import Adapter, error_of_status, parse_or_error
from cashier.wire.transport import Request, Response, Transport


class BatchSettings(BatchPolicy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path`: where the batch form is asked for, below the source's url."""

    path: Annotated[str, Meta(pattern=r"^/[!-~]*$")]


class BatchAnswer(Struct, frozen=True):
    answers: list[Raw]


class BatchPart(Struct, frozen=True):
    """One of the two."""

    ok: Raw = Raw()
    error: Raw = Raw()


class BatchError(Struct, frozen=True):
    status: int


_encode = msgspec.json.Encoder().encode
_envelope = msgspec.json.Decoder(BatchAnswer).decode
_part = msgspec.json.Decoder(BatchPart).decode
_refusal = msgspec.json.Decoder(BatchError).decode
_ABSENT = (b"", b"null")


class BatchWireUpstream:
    """A `Many`: a source's batch form over a transport. ValueError for an adapter that does not say what its batch takes."""

    __slots__ = ("_adapter", "_parameters", "_path", "_send", "places")

    def __init__(self, adapter: Adapter, transport: Transport, path: str) -> None:
        parameters = getattr(adapter, "parameters", None)
        if not callable(parameters):
            raise ValueError("batch: this source has no batch form, for there is no function parameters(asked)")
        self.places = transport.places
        self._adapter = adapter
        self._parameters = parameters
        self._path = path
        self._send = transport.send

    def call_many(
        self, many: Sequence[Known], call_headers: Any, budget_ms: int, heard: OnBatchOutcomes, avoid: int = 0
    ) -> UpstreamCall:
        def reply(response: Response | SourceError) -> None:
            heard(self._outcomes(response, many))

        body = _encode({"requests": [self._parameters(known) for known in many]})
        return self._send(Request(self._path, "POST", body), call_headers, budget_ms, reply, avoid)

    def read(self, none: bool, body: bytes, known: Known) -> Any:
        return parse_or_error(self._adapter.parse, 404 if none else 200, body, known)

    def _outcomes(self, response: Response | SourceError, many: Sequence[Known]) -> Sequence[Outcome] | SourceError:
        if isinstance(response, SourceError):
            return response
        if response.status != 200:  # no part of it: a 404 says nothing about any key
            return error_of_status(response.status, response.retry_after_s)
        envelope = parse_or_error(_envelope, response.body)
        if isinstance(envelope, SourceError):
            return envelope
        parts = envelope.answers
        if len(parts) != len(many):  # whose part is whose cannot be told any more
            return Garbled(f"{len(parts)} answers to {len(many)} requests")
        return [self._outcome(part, known) for part, known in zip(parts, many, strict=True)]

    def _outcome(self, raw: Raw, known: Known) -> Outcome:
        try:
            found = parse_or_error(self._read_part, raw, known)
        except Exception as bug:  # noqa: BLE001 - of an adapter, with one part; raised on, it would cost every key of the call
            told = {"message": f"cashier: reading one part of the batch {self._path} raised", "exception": bug}
            asyncio.get_running_loop().call_exception_handler(told)
            found = Garbled(f"reading it raised {type(bug).__name__}")
        return (found, False, None) if isinstance(found, SourceError) else found

    def _read_part(self, raw: Raw, known: Known) -> Outcome:
        part = _part(raw)
        error = bytes(part.error)
        if error in _ABSENT:
            body = bytes(part.ok)  # a copy: kept as it is, it would keep the bytes of all the others
            return self._adapter.parse(200, body, known), False, body
        status = _refusal(error).status
        if status == 404:
            return self._adapter.parse(404, error, known), True, error
        raise error_of_status(status, None)
