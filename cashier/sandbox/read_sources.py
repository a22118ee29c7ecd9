"""Reads of the sources: the checks of the parameters, and the lookup of the answer in the world."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import Protocol

from cashier.sandbox.records import Json
from cashier.sandbox.source_table import SOURCE_READS
from cashier.sandbox.upstream_answer import BadInput, UpstreamAnswer, error_answer
from cashier.sandbox.world import World

# Encoded answers take some kilobytes each, so these take some tens of megabytes.
_ANSWERS_CACHED = 4_000
_MAX_BATCH = 500
_MAX_VALUE = 2**53 - 1

_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_INTEGER = re.compile(r"[0-9]{1,16}")


LookUp = Callable[[str, Mapping[str, object]], UpstreamAnswer]


class Reader(Protocol):
    """The answers of the sources that are only read."""

    def look_up(self, source: str, parameters: Mapping[str, object]) -> UpstreamAnswer: ...

    def look_up_many(self, source: str, body: object) -> UpstreamAnswer: ...


class SourceReader:
    """The read-only sources of one world. Wrong parameters give a 400, a missing record a 404."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cached = lru_cache(maxsize=_ANSWERS_CACHED)(self._read_at)

    def __repr__(self) -> str:
        return f"SourceReader({self._world!r}, cached={self._cached.cache_info().currsize})"

    def look_up(self, source: str, parameters: Mapping[str, object]) -> UpstreamAnswer:
        """The answer of a source to parameters given by name."""
        read = SOURCE_READS[source]
        try:
            values = [_checked(name, parameters.get(name)) for name in read.parameters]
            for name in read.checked:
                _checked(name, parameters.get(name))
        except BadInput as bad:
            return bad.answer()
        self._world.catch_up()
        if read.version is None:
            return self._read(source, *values)
        return self._cached(read.version(self._world, *values), source, *values)

    def look_up_many(self, source: str, body: object) -> UpstreamAnswer:
        """The batch form: the same answers in the order of the requests."""
        return batch_answer(self.look_up, source, body)

    def _read_at(self, version: Hashable, source: str, *values: str) -> UpstreamAnswer:
        return self._read(source, *values)

    def _read(self, source: str, *values: str) -> UpstreamAnswer:
        body = SOURCE_READS[source].read(self._world, *values)
        return error_answer(404, "NOT_FOUND", source=source) if body is None else UpstreamAnswer(200, body)


def batch_answer(look_up: LookUp, source: str, body: object) -> UpstreamAnswer:
    """The answers of `look_up` to the requests of a batch; 400 for what is none."""
    requests = body.get("requests") if isinstance(body, dict) else None
    if not isinstance(requests, list) or not all(isinstance(request, dict) for request in requests):
        return BadInput("requests", "a list of objects").answer()
    if len(requests) > _MAX_BATCH:
        return BadInput("requests", f"at most {_MAX_BATCH} objects").answer()
    return UpstreamAnswer(200, {"answers": [_part(look_up(source, request)) for request in requests]})


def _part(answer: UpstreamAnswer) -> Json:
    return (
        {"ok": answer.body}
        if answer.status == 200
        else {"error": {"status": answer.status, "code": answer.body["code"]}}
    )


def _checked(name: str, value: object) -> str:
    pattern, expected = _PARAMETER_RULES[name]
    # An amount is a number in a batch and digits in a query.
    text = str(value) if name == "value" and isinstance(value, int) else value
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise BadInput(name, expected)
    if name == "value" and int(text) > _MAX_VALUE:
        raise BadInput(name, expected)
    return text


_IDENTITY_RULE = (_IDENTITY, "1 to 64 of A-Za-z0-9_.:@~-")
_PARAMETER_RULES = {
    "order_id": _IDENTITY_RULE,
    "merchant_id": _IDENTITY_RULE,
    "user_id": _IDENTITY_RULE,
    "currency": (_CURRENCY, "three capital letters"),
    "country": (_COUNTRY, "two capital letters"),
    "value": (_INTEGER, "a whole number of minor units"),
}
