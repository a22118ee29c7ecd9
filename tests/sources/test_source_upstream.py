"""A function of the embedding program in place of a service, and its possible faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cashier.domain.facts import Balances
from cashier.source_errors import Garbled, Overloaded, SourceError, Unreachable
from cashier.sources.balance import BALANCE
from cashier.sources.source_upstream import FunctionUpstream

ANSWER: dict[str, Any] = {"user_id": "u_1", "accounts": []}


async def outcome_of(function: Callable[..., Any]) -> tuple[Any, list[dict[str, Any]]]:
    """The outcome of a call, and the contexts that the event loop received."""
    loop = asyncio.get_running_loop()
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    ended: asyncio.Future[Any] = loop.create_future()
    FunctionUpstream(BALANCE, function, ("user_id",)).call(
        {"user_id": "u_1"}, None, 100, lambda outcome, *_: ended.set_result(outcome)
    )
    return await ended, contexts


async def test_the_result_is_read_as_the_contracts_answer() -> None:
    async def balance(user_id: str) -> dict[str, Any]:
        return {**ANSWER, "user_id": user_id}

    assert await outcome_of(balance) == (Balances("u_1", ()), [])


async def test_a_source_error_of_the_function_is_the_outcome() -> None:
    async def balance(user_id: str) -> None:
        raise Overloaded("later", 2.0)

    outcome, contexts = await outcome_of(balance)
    assert isinstance(outcome, Overloaded)
    assert contexts == []


def raises_before_it_is_awaited(user_id: str) -> Any:
    raise ConnectionError("no database")


def returns_what_cannot_be_awaited(user_id: str) -> Any:
    return ANSWER


async def raises_when_awaited(user_id: str) -> Any:
    raise ConnectionError("no database")


async def exits(user_id: str) -> Any:
    raise SystemExit


async def wants_other_arguments(order_id: str) -> Any: ...


@pytest.mark.parametrize(
    "function",
    [raises_before_it_is_awaited, returns_what_cannot_be_awaited, raises_when_awaited, wants_other_arguments, exits],
)
async def test_a_function_that_fails_in_any_way_is_unreachable_and_reported(
    function: Callable[..., Any],
) -> None:
    outcome, contexts = await outcome_of(function)
    assert isinstance(outcome, SourceError)
    assert type(outcome) is Unreachable
    assert [context["message"] for context in contexts] == ["cashier: the function of source 'balance' raised"]


async def test_a_function_that_cancels_itself_is_unreachable_at_once() -> None:
    async def balance(user_id: str) -> None:
        raise asyncio.CancelledError

    outcome, contexts = await outcome_of(balance)
    assert type(outcome) is Unreachable
    assert contexts == []


async def test_a_result_that_raises_when_it_is_read_is_garbled() -> None:
    class Lazy:
        user_id = "u_1"

        @property
        def accounts(self) -> Any:
            raise RuntimeError("no database")

    async def balance(user_id: str) -> Any:
        return Lazy()

    outcome, _ = await outcome_of(balance)
    assert type(outcome) is Garbled
    assert outcome.detail == "reading the result raised RuntimeError"


async def test_an_abandoned_function_is_cancelled_and_gives_no_answer() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def balance(user_id: str) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def on_answer(outcome: Any, not_found: bool = False, body: bytes | None = None) -> None:
        raise AssertionError("called after it was abandoned")

    call = FunctionUpstream(BALANCE, balance, ("user_id",)).call({"user_id": "u_1"}, None, 100, on_answer)
    await started.wait()
    assert call is not None
    call.abandon()
    await cancelled.wait()
