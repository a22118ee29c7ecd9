"""Every configured time of the payment path is kept, or the start refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cashier.core import Cashier
from cashier.domain.pay_method import Kind
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.budgets import longest_run_ms, longest_submit_ms, usual_submit_ms
from cashier.payments.settings import AcceptSettings
from cashier.settings.loader import configuration
from cashier.settings.payment_faults import payment_faults
from cashier.settings.schema import Configuration, ConfigurationError
from cashier.wire.transport import Request, Response
from tests.payments.checkout import GATING, REQUIRED, Checkout, checkout
from tests.support.virtual_consultation import cashiers_on_the_loops_clock
from tests.support.virtual_time import run_in_virtual_time

SOURCES = (*REQUIRED, *GATING, "marketing")
# The call of each service in a submit, and the key of its time.
SERVICE_KEYS = {"look_up": "look_ms", "decide": "decide_ms", "submit": "submit_ms", "result": "look_ms"}
MARGIN_MS = 3
BUDGET_MS = st.integers(2, 60_000)
TRIES = st.fixed_dictionaries(
    {},
    optional={
        "attempts": st.integers(1, 5),
        "attempt_ms": st.integers(1, 20_000),
        "first_wait_ms": st.integers(1, 2_000),
        "longest_wait_ms": st.integers(1, 5_000),
    },
)


def configured(accept: dict[str, int], tries: dict[str, dict[str, int]], timeout_ms: int | None) -> Configuration:
    services = {name: {"url": "http://127.0.0.1:1", "tries": own} for name, own in tries.items()}
    sources = {"quota": {"url": "http://127.0.0.1:1", "timeout_ms": timeout_ms}} if timeout_ms is not None else {}
    return configuration(
        {
            "tokens": {"secrets": ["s" * 32]},
            "consult": {"deadline_ms": 60_000, "max_deadline_ms": 60_000},
            "accept": accept,
            "sources": {**services, **sources},
        },
        "cashier.toml",
    )


async def pay_slowly(config: Configuration, slow: frozenset[str], method_id: str) -> PaymentStatus:
    """Pay, while each of `slow` answers just within its configured time."""
    shop = Checkout({})
    held = config.settings

    def slowed(name: str, answer: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def slowly(**inputs: Any) -> Any:
            await asyncio.sleep(max(0, held.check_ms(name) - MARGIN_MS) / 1_000)
            return await answer(**inputs)

        return slowly

    def slowed_service(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def slowly(request: Request) -> Response:
            await asyncio.sleep(max(0, getattr(held.accept, SERVICE_KEYS[name]) - MARGIN_MS) / 1_000)
            return await shop._sandbox(request)

        return slowly

    with cashiers_on_the_loops_clock():
        worker = shop.add_worker(config)
    async with worker:
        request = await shop.new_request("balance_is_enough", method_id)
        shop._sources = {  # type: ignore[assignment]
            name: slowed(name, shop._sources[name]) if name in slow else shop._sources[name] for name in SOURCES
        }
        shop.replies |= {name: slowed_service(name) for name in SERVICE_KEYS if name in slow}
        began_s = asyncio.get_running_loop().time()
        payment = await shop.submit(request)
        took_ms = (asyncio.get_running_loop().time() - began_s) * 1_000
        assert took_ms <= longest_submit_ms(held.accept_in_effect)
        return payment.status


@given(
    accept=st.fixed_dictionaries(
        {"check_ms": st.integers(1_000, 60_000), "decide_ms": BUDGET_MS, "submit_ms": BUDGET_MS, "look_ms": BUDGET_MS}
    ),
    tries=st.fixed_dictionaries({"engine": TRIES, "acquirer": TRIES}),
    timeout_ms=st.none() | st.integers(1_000, 59_000),
    slow=st.sampled_from(
        [*(frozenset({name}) for name in (*SOURCES, *SERVICE_KEYS)), *[frozenset((*SOURCES, *SERVICE_KEYS))] * 6]
    ),
    method_id=st.sampled_from(["BALANCE:acc_1", "WALLET:ALIPAY"]),
)
@settings(max_examples=2 * settings().max_examples)
def test_times_without_a_fault_are_kept(
    accept: dict[str, int],
    tries: dict[str, dict[str, int]],
    timeout_ms: int | None,
    slow: frozenset[str],
    method_id: str,
) -> None:
    """For every single upstream, and for all of them at once."""
    config = configured(accept, tries, timeout_ms)
    assume(not list(payment_faults(config.settings, config.catalog)))
    status = run_in_virtual_time(pay_slowly(config, slow, method_id))
    wanted = PaymentStatus.SUCCEEDED if method_id.startswith("BALANCE") else PaymentStatus.ACTION_REQUIRED
    assert status is wanted


def test_the_defaults_are_kept_by_all_upstreams_at_once() -> None:
    everything = frozenset((*SOURCES, *SERVICE_KEYS))
    assert run_in_virtual_time(pay_slowly(configured({}, {}, None), everything, "BALANCE:acc_1")) is (
        PaymentStatus.SUCCEEDED
    )


@pytest.mark.parametrize(
    ("accept", "tries", "words"),
    [
        (
            {"look_ms": 1_500},
            {"attempts": 3, "attempt_ms": 800},
            ("[sources.engine.tries] attempts = 3", "[accept] look_ms = 1500", "raise look_ms above 1750"),
        ),
        ({}, {"attempts": 9}, ("attempts = 9", "look_ms = 2000", "the last may start only after")),
        ({}, {"attempts": 2, "first_wait_ms": 5_000, "longest_wait_ms": 5_000}, ("attempts = 2", "the waits")),
        ({"submit_ms": 45_000}, {}, ("[accept] submit_ms = 45000", "CONSUMER_QR.expires_in_s = 45", "lower submit_ms")),
    ],
)
def test_times_that_cut_each_other_are_refused_at_the_start(
    accept: dict[str, int], tries: dict[str, int], words: tuple[str, ...]
) -> None:
    config = configured(accept, {"engine": tries, "acquirer": {}, "risk": {}}, None)

    async def service(request: Request) -> Response:
        return Response(404, b"")

    with pytest.raises(ConfigurationError) as refused:
        Cashier(config=config, sources={**dict.fromkeys(SOURCES, service), **dict.fromkeys(("risk",), service)})
    [fault] = refused.value.faults
    assert all(word in fault for word in words), fault


def test_a_code_that_is_reversed_before_the_engine_answers_is_refused_or_not_offered() -> None:
    config = configured({"submit_ms": 50_000}, {}, None)
    counter = config.catalog.methods[Kind.CONSUMER_QR]

    def faults_with(**changes: Any) -> list[str]:
        terms = {**config.catalog.methods, Kind.CONSUMER_QR: msgspec.structs.replace(counter, **changes)}
        return list(payment_faults(config.settings, msgspec.structs.replace(config.catalog, methods=terms)))

    [fault] = faults_with(expires_in_s=60)
    assert "submit_ms = 50000" in fault
    assert "reversed 45 s after it is sent" in fault
    assert faults_with(offered=False) == []


@pytest.mark.virtual_time
async def test_a_submit_that_takes_as_long_as_configured_may_still_arrive() -> None:
    """A lost answer after a minute: the payment is not reversed the moment it ends."""
    shop = Checkout({})

    async def lost(request: Request) -> Response:
        if request.method == "POST" and request.target == "/payments":
            await asyncio.sleep(3_600)
        return await shop._sandbox(request)

    async with shop.add_worker(configured({"submit_ms": 40_000}, {}, None)):
        request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
        shop.replies["submit"] = lost
        payment = await shop.submit(request)
        assert payment.status is PaymentStatus.PROCESSING
        await asyncio.sleep(30)
        assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
        assert shop.count("reverse") == 0
        await asyncio.sleep(11)
        assert (await shop.look(payment)).status is PaymentStatus.CLOSED


@pytest.mark.parametrize("look_ms", [1, 2_000, 60_000])
def test_what_waits_for_a_submit_waits_as_long_as_it_may_take(look_ms: int) -> None:
    accept = AcceptSettings(look_ms=look_ms, check_ms=60_000, decide_ms=60_000, submit_ms=60_000)
    assert usual_submit_ms(accept) < longest_submit_ms(accept) < longest_run_ms(accept)
    assert longest_run_ms(accept) < 3_600_000, "claims in Valkey last an hour at most"


@pytest.mark.virtual_time
async def test_a_source_that_waits_for_the_order_has_its_whole_time_too() -> None:
    """The submit names no country."""

    def slowed(answer: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def slowly(**inputs: Any) -> Any:
            await asyncio.sleep(0.997)
            return await answer(**inputs)

        return slowly

    async with checkout(check_ms=1_000) as shop:
        request = await shop.new_request("balance_is_enough", "BALANCE:acc_1")
        assert request.country is None
        slow = {name: slowed(shop._sources[name]) for name in ("order", "channel")}
        shop._sources = {**shop._sources, **slow}  # type: ignore[assignment]
        assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED
