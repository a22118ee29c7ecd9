"""Trial of one adapter: what it sends, and what comes out of sample answers or of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS
from cashier.probe import OPTION_OF_INPUT, PATIENCE_MS, near_misses, presentable
from cashier.settings.schema import Configuration, ConfigurationError
from cashier.source_errors import SourceError, TimedOut, Unreachable
from cashier.sources.adapter_hooks import AdapterHooks
from cashier.sources.adapter_upstream import AdapterUpstream
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response, Transport, TransportCall
from cashier.wiring.transports import adapter_transport, load_adapter, path_prefix

_log = structlog.get_logger("cashier")


class CannotTry(Exception):
    """The trial lacks something; the text says what."""


class SentRequest(Struct, frozen=True):
    """One request of the adapter. `target`: with the prefix of the url. `status`: of its answer."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: str
    status: int | None = None


class Trial(Struct, frozen=True, kw_only=True):
    """`fault`: why the answer cannot be used, and `raised` the exception behind it with its text.

    `mapping`: what the adapter returned, as JSON types, before it was checked. `none`: it said that
    there is none. `answer`: what a consultation would use; None with `fault`. `findings`: fields
    that are spelled like one of the contract. `unused`: samples that it did not ask for.
    """

    requests: tuple[SentRequest, ...]
    fault: str | None
    raised: str | None
    mapping: Any
    none: bool
    answer: Any
    findings: tuple[str, ...]
    unused: int


class _TriedTransport:
    """A `Transport` that answers with samples, or through another one, and keeps the requests."""

    def __init__(self, prefix: str, samples: Sequence[Response], live: Transport | None) -> None:
        self._prefix = prefix
        self._samples = list(samples)
        self._live = live
        self.requests: list[SentRequest] = []

    addresses = ("a sample",)

    @property
    def unused(self) -> int:
        return len(self._samples)

    async def open(self) -> None: ...

    async def is_reachable(self) -> bool:
        return True

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> TransportCall:
        index = len(self.requests)
        body = request.body.decode("utf-8", "backslashreplace")
        target = f"{self._prefix}{request.target}"
        self.requests.append(SentRequest(request.method, target, request.headers, body))

        def on_answer(response: Response | SourceError) -> None:
            if isinstance(response, Response):
                self.requests[index] = msgspec.structs.replace(self.requests[index], status=response.status)
            on_response(response)

        if self._live is not None:
            return self._live.send(request, call_headers, budget_ms, on_answer)
        answer = self._samples.pop(0) if self._samples else Unreachable("there is no sample for this request")
        handle = asyncio.get_running_loop().call_soon(on_answer, answer)
        return SimpleNamespace(address_index=0, sent=True, abandon=handle.cancel)

    async def close(self) -> None: ...


async def try_adapter(
    config: Configuration, source: str, known: Mapping[str, Any], samples: Sequence[Response], *, live: bool = False
) -> Trial:
    """Call the adapter of `source` once, with `samples` for its requests in their order.

    `live`: open the adapter and send the requests to the service instead. Raises
    `ConfigurationError` and `CannotTry`.
    """
    if source not in SOURCE_NAMES:
        raise CannotTry(f"there is no source {source!r} of a consultation; known are {', '.join(SOURCE_NAMES)}")
    spec = next(spec for spec in SOURCE_SPECS if spec.source.name == source)
    own = config.settings.sources[source]
    if own is None or own.adapter is None:
        raise CannotTry(f"{config.source}: [sources.{source}] has no adapter")
    missing = [need for need in spec.needs if need not in known]
    if missing:
        options = dict.fromkeys(OPTION_OF_INPUT[need] for need in missing)
        raise CannotTry(f"{source} is asked with {', '.join(spec.needs)}: give {' and '.join(options)}")
    mappings: list[bytes] = []
    raised: list[str] = []
    try:
        adapter = load_adapter(
            spec,
            own,
            own.adapter,
            config.folder,
            on_mapping=mappings.append,
            on_raised=lambda fault: raised.append(f"{type(fault).__name__}: {fault}"),
        )
        real, resources = adapter_transport(own) if live else (None, [])
    except ValueError as fault:
        raise ConfigurationError([f"{config.source}: [sources.{source}] {fault}"]) from None
    transport = _TriedTransport(path_prefix(own), samples, real)
    hooks = AdapterHooks(adapter, _log.warning)
    try:
        if live:
            await asyncio.gather(hooks.open(), *(resource.open() for resource in resources))
        outcome = await _outcome(AdapterUpstream(adapter, transport), known)
    finally:
        if real is not None:
            await asyncio.gather(hooks.close(), real.close(), *(resource.close() for resource in resources))
    failed = isinstance(outcome, SourceError)
    return Trial(
        requests=tuple(transport.requests),
        fault=f"{outcome.cause.value}: {outcome.detail}" if failed else None,
        raised=raised[-1] if failed and raised else None,
        mapping=msgspec.json.decode(mappings[-1]) if mappings and mappings[-1] else None,
        none=not failed and mappings == [b""],
        answer=None if failed else presentable(outcome),
        findings=tuple(near_misses(spec.source, mappings[-1])) if mappings else (),
        unused=transport.unused,
    )


async def _outcome(upstream: AdapterUpstream, known: Mapping[str, Any]) -> Any:
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_answer(outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        answered.set_result(outcome)

    call = upstream.call(known, CallHeaders("adapter-try"), PATIENCE_MS, on_answer)
    try:
        async with asyncio.timeout(PATIENCE_MS / 1000):
            return await answered
    except TimeoutError:
        return TimedOut(f"no answer within {PATIENCE_MS} ms")
    finally:
        call.abandon()
