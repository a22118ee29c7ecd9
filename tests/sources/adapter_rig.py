"""One call of a source behind an adapter, over a transport that the test answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from cashier.consultation.source_table import SOURCE_SPECS
from cashier.domain.money import Money
from cashier.source_errors import SourceError
from cashier.sources.adapter import Adapter
from cashier.sources.adapter_upstream import AdapterUpstream
from cashier.wire.response_headers import ResponseHeaders
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response

SPECS = {spec.source.name: spec for spec in SOURCE_SPECS}
KNOWN = {
    "order_id": "o_1",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "amount": Money("CNY", 12800),
    "currency": "CNY",
    "country": "CN",
}
HEADERS = CallHeaders("r-1", "00-1-2-01")
CARD = {
    "card_id": "c_1", "bank": "ICBC", "bank_name": "ICBC", "type": "DEBIT", "brand": "UNIONPAY", "last4": "6222",
    "expiry": "2031-05", "status": "ACTIVE",
}  # fmt: skip
CARDS: dict[str, Any] = {"user_id": "u_1", "cards": [CARD], "agreements": []}
OK = Response(200, b"{}")


def responding(status: int = 200, body: bytes = b"{}", **headers: str) -> Response:
    return Response(status, body, headers=ResponseHeaders(headers))


class AnsweringTransport:
    """Answers each request with the next response; the last one stays. None: never."""

    addresses = ("there",)

    def __init__(self, *responses: Response | SourceError | None) -> None:
        self._responses = list(responses or (OK,))
        self.requests: list[Request] = []
        self.sent: list[tuple[CallHeaders, int]] = []
        self.abandoned = 0
        self.callbacks: list[OnResponse] = []

    def answer_with(self, *responses: Response | SourceError | None) -> None:
        """Answer further requests with these."""
        self._responses = list(responses)

    async def open(self) -> None: ...

    async def is_reachable(self) -> bool:
        return True

    async def close(self) -> None: ...

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> SimpleNamespace:
        self.requests.append(request)
        self.sent.append((call_headers, budget_ms))
        self.callbacks.append(on_response)
        response = self._responses.pop(0) if len(self._responses) > 1 else self._responses[0]
        handle = None if response is None else asyncio.get_running_loop().call_soon(on_response, response)

        def abandon() -> None:
            self.abandoned += 1
            if handle is not None:
                handle.cancel()

        return SimpleNamespace(address_index=0, sent=True, abandon=abandon)


def form_1(value: Any = CARDS, request: Any = None, **others: Any) -> SimpleNamespace:
    """An adapter of the first form. `value`: what `parse` returns, or a function or exception."""

    def parse(response: Response, asked: Any) -> Any:
        return value_of(value, asked)

    return SimpleNamespace(request=request or (lambda asked: Request("/")), parse=parse, **others)


def form_2(value: Any = CARDS, **others: Any) -> SimpleNamespace:
    async def answer(asked: Any, call: Any) -> Any:
        return value_of(value, asked)

    return SimpleNamespace(answer=answer, **others)


def value_of(value: Any, asked: Any) -> Any:
    if isinstance(value, BaseException):
        raise value
    return value(asked) if callable(value) else value


def adapter_of(adapter: Any, source: str = "card", **more: Any) -> Adapter:
    return Adapter("my.cards", adapter, SPECS[source].source, SPECS[source].needs, **more)


async def outcome_of(
    adapter: Any, transport: AnsweringTransport | None = None, source: str = "card"
) -> tuple[Any, bool, bytes | None]:
    """The outcome of one call, which must come without a timer."""
    ended: asyncio.Future[tuple[Any, bool, bytes | None]] = asyncio.get_running_loop().create_future()

    def on_answer(outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        ended.set_result((outcome, not_found, body))

    upstream = AdapterUpstream(adapter_of(adapter, source), transport or AnsweringTransport())
    upstream.call(KNOWN, HEADERS, 100, on_answer)
    assert not ended.done(), "the callback was called before the call returned"
    async with asyncio.timeout(30):
        return await ended


async def detail_of(adapter: Any, transport: AnsweringTransport | None = None, source: str = "card") -> str:
    """The detail of the error that the call ends with."""
    outcome, not_found, body = await outcome_of(adapter, transport, source)
    assert isinstance(outcome, SourceError), outcome
    assert (not_found, body) == (False, None)
    return outcome.detail


Values = Sequence[Any] | Callable[[Any], Any]
