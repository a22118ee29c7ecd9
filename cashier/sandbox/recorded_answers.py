"""Answers of recordings, served in the place of the world's: `cashier record` wrote them.

Only reads: risk, engine and acquirer decide by what happened before, and are not recorded. Times
move with the clock, so that an order that had an hour left then has an hour left now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from cashier.sandbox.read_sources import batch_answer
from cashier.sandbox.source_table import SOURCE_READS
from cashier.sandbox.upstream_answer import UpstreamAnswer, error_answer

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")


class _Answer(Struct):
    source: str
    parameters: dict[str, str]
    status: int
    body: dict[str, Any] | None = None


class _Recording(Struct):
    recorded_at: datetime
    request: dict[str, Any]
    answers: list[_Answer]


class BadRecording(ValueError):
    """A folder or file that cannot be replayed; the text names it."""


class RecordedReader:
    """The recordings of a folder. `requests`: the consultations that they serve.

    Raises `BadRecording`.
    """

    def __init__(self, folder: Path, now: datetime | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answers: dict[tuple[str, tuple[str, ...]], UpstreamAnswer] = {}
        for file in sorted(folder.glob("*.json")):
            self._add(file, now or datetime.now(UTC))
        if not self.requests:
            raise BadRecording(f"{folder} has no recording; make one with `cashier record`")

    def __repr__(self) -> str:
        return f"RecordedReader(answers={len(self._answers)})"

    @property
    def sources(self) -> tuple[str, ...]:
        """The services of which there is an answer."""
        recorded = {source for source, _ in self._answers}
        return tuple(source for source in SOURCE_READS if source in recorded)

    def look_up(self, source: str, parameters: Mapping[str, object]) -> UpstreamAnswer:
        values = tuple(str(parameters.get(name)) for name in SOURCE_READS[source].parameters)
        return self._answers.get((source, values)) or error_answer(404, "NOT_FOUND", source=source)

    def look_up_many(self, source: str, body: object) -> UpstreamAnswer:
        """The batch form."""
        return batch_answer(self.look_up, source, body)

    def _add(self, file: Path, now: datetime) -> None:
        try:
            recording = msgspec.json.decode(file.read_bytes(), type=_Recording)
            passed = now - recording.recorded_at
            for answer in recording.answers:
                read = SOURCE_READS[answer.source]
                key = answer.source, tuple(answer.parameters[name] for name in read.parameters)
                body = {"code": "NOT_FOUND"} if answer.body is None else _moved(answer.body, passed)
                self._answers[key] = UpstreamAnswer(answer.status, body)
        except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
            raise BadRecording(f"{file} is no recording: {type(error).__name__}") from None
        self.requests.append(recording.request)


def _moved(value: Any, passed: timedelta) -> Any:
    match value:
        case dict():
            return {name: _moved(part, passed) for name, part in value.items()}
        case list():
            return [_moved(part, passed) for part in value]
        case str() if _TIME.fullmatch(value):
            return (datetime.fromisoformat(value) + passed).isoformat()
    return value
