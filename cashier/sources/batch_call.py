"""The batch form of a source: one POST with the parameters of many requests, one part per answer.

A part is judged like the answer to a single call, and a bad part affects its own key only. An error
of the whole call affects all keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from cashier.fanout.ask import Known
from cashier.fanout.batch import BatchPolicy, OnBatchOutcomes, Outcome
from cashier.fanout.upstream_protocol import UpstreamCall
from cashier.source_errors import Garbled, SourceError
from cashier.sources.source import Adapter, error_of_status, parse_or_error
from cashier.wire.transport import Request, Response, Transport


class BatchSettings(BatchPolicy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path`: the batch endpoint, appended to the source's URL."""

    path: Annotated[str, Meta(pattern=r"^/[!-~]*$")]


class BatchAnswer(Struct, frozen=True):
    answers: list[Raw]


class BatchPart(Struct, frozen=True):
    """Has one of the two."""

    ok: Raw = Raw()
    error: Raw = Raw()


class BatchError(Struct, frozen=True):
    status: int


_encode = msgspec.json.Encoder().encode
_decode_answer = msgspec.json.Decoder(BatchAnswer).decode
_decode_part = msgspec.json.Decoder(BatchPart).decode
_decode_error = msgspec.json.Decoder(BatchError).decode
_ABSENT = (b"", b"null")


class BatchWireUpstream:
    """A `BatchUpstream`: the batch form of a source over a transport.

    ValueError for an adapter without the function `parameters`.
    """

    __slots__ = ("_adapter", "_parameters", "_path", "_send", "addresses")

    def __init__(self, adapter: Adapter, transport: Transport, path: str) -> None:
        parameters = getattr(adapter, "parameters", None)
        if not callable(parameters):
            raise ValueError("batch: this source has no batch form, because it has no function parameters(inputs)")
        self.addresses = transport.addresses
        self._adapter = adapter
        self._parameters = parameters
        self._path = path
        self._send = transport.send

    def call_many(
        self, many: Sequence[Known], call_headers: Any, budget_ms: int, on_outcomes: OnBatchOutcomes, avoid: int = 0
    ) -> UpstreamCall:
        def on_response(response: Response | SourceError) -> None:
            on_outcomes(self._outcomes(response, many))

        body = _encode({"requests": [self._parameters(known) for known in many]})
        return self._send(Request(self._path, "POST", body, safe=True), call_headers, budget_ms, on_response, avoid)

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return parse_or_error(self._adapter.parse, 404 if not_found else 200, body, known)

    def _outcomes(self, response: Response | SourceError, many: Sequence[Known]) -> Sequence[Outcome] | SourceError:
        if isinstance(response, SourceError):
            return response
        if response.status != 200:  # a 404 of the call says nothing about any key
            return error_of_status(response.status, response.retry_after_s)
        answer = parse_or_error(_decode_answer, response.body)
        if isinstance(answer, SourceError):
            return answer
        parts = answer.answers
        if len(parts) != len(many):  # parts can no longer be matched to requests
            return Garbled(f"{len(parts)} answers to {len(many)} requests")
        return [self._outcome(part, known) for part, known in zip(parts, many, strict=True)]

    def _outcome(self, raw: Raw, known: Known) -> Outcome:
        try:
            outcome = parse_or_error(self._parse_part, raw, known)
        # A bug of an adapter in one part: raised here, it would cost every key of the call.
        except Exception as bug:  # noqa: BLE001
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"cashier: parsing one part of the batch {self._path} raised", "exception": bug}
            )
            outcome = Garbled(f"parsing it raised {type(bug).__name__}")
        return (outcome, False, None) if isinstance(outcome, SourceError) else outcome

    def _parse_part(self, raw: Raw, known: Known) -> Outcome:
        part = _decode_part(raw)
        error = bytes(part.error)
        if error in _ABSENT:
            body = bytes(part.ok)  # a copy, because a view would keep the bytes of all parts alive
            return self._adapter.parse(200, body, known), False, body
        status = _decode_error(error).status
        if status == 404:
            return self._adapter.parse(404, error, known), True, error
        raise error_of_status(status, None)
