"""No consultation offers what acceptance has found to be wrong, in this worker or another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from msgspec import structs

from cashier.consultation.answer import Consultation
from cashier.consultation.cache_invalidation import CacheInvalidation
from cashier.consultation.source_table import SOURCE_SPECS, known_inputs
from cashier.core import Cashier
from cashier.domain.learned_facts import FactGroup
from cashier.domain.money import Money
from cashier.domain.order import ConsultRequest
from cashier.domain.pay_method import Availability, ReasonCode
from cashier.domain.payment_state import PaymentStatus
from cashier.fanout.key_index import key_text
from cashier.payments.errors import ConsultChanged
from cashier.payments.learning import Learning
from cashier.sandbox import CASES
from cashier.settings.loader import configuration
from tests.fanout.l2.valkey_server import until, valkey_server
from tests.payments.checkout import Checkout, cached_configuration, method_by_id
from tests.payments.test_offer_changes import CHANGES

CASE = "chinese_shop"
# One payer has all these orders.
OTHER_ORDER = "balance_is_enough"


async def _merchant_is_suspended(shop: Checkout) -> None:
    shop.world.population._merchants["m_1"]["status"] = "SUSPENDED"


async def _user_is_frozen(shop: Checkout) -> None:
    person = shop.world.population.user("u_1")
    assert person is not None
    person.member["status"] = "FROZEN"


EVENTS: dict[str, tuple[str, str, Callable[[Checkout], Awaitable[None]]]] = {
    **{name: (case, method, change) for name, (case, method, change, _) in CHANGES.items()},
    "the merchant is suspended": (CASE, "WALLET:ALIPAY", _merchant_is_suspended),
    "the payer is frozen": (CASE, "WALLET:ALIPAY", _user_is_frozen),
}


async def offers(cashier: Cashier, case: str) -> list[Any]:
    """What the payer sees: no times and tokens."""
    consultation = await cashier.consult(request_of(case))
    return [
        consultation.blocked,
        [(method.method_id, method.availability, method.reason, method.amount) for method in consultation.methods],
    ]


def request_of(case: str) -> ConsultRequest:
    body = {name: value for name, value in CASES[case].request.items() if name != "amount"}
    return msgspec.convert(body, ConsultRequest)


def cached_sources(consultation: Consultation) -> set[str]:
    return {report.name for report in consultation.sources if report.status == "CACHED"}


async def fresh_offers(shop: Checkout, case: str) -> list[Any]:
    """Of a worker that has nothing cached."""
    async with shop.add_worker(cached_configuration()) as fresh:
        return await offers(fresh, case)


@pytest.mark.virtual_time
@pytest.mark.parametrize("name", EVENTS)
async def test_after_a_refused_submit_the_cached_offer_is_the_present_one(shop: Checkout, name: str) -> None:
    case, method_id, change = EVENTS[name]
    request = await shop.new_request(case, method_id, card_token="tok_1" if method_id == "CARD" else None)
    assert {"card", "member", "merchant", "channel"} <= cached_sources(await shop.consult(case))
    await change(shop)
    with pytest.raises(ConsultChanged):
        await shop.submit(request)
    assert await offers(shop.workers[0], case) == await fresh_offers(shop, case)


@pytest.mark.virtual_time
@pytest.mark.parametrize("end", ["SUCCEEDED", "BALANCE_INSUFFICIENT", "INSTRUMENT_DECLINED", "cancelled"])
async def test_after_a_payment_the_offer_for_the_next_order_is_the_present_one(shop: Checkout, end: str) -> None:
    before = await offers(shop.workers[0], CASE)
    payment = await shop.pay(OTHER_ORDER, "WALLET:ALIPAY")
    assert await offers(shop.workers[0], CASE) == await fresh_offers(shop, CASE)
    if end == "cancelled":
        await shop.cancel(payment)
    else:
        shop.settle(payment, end if end == "SUCCEEDED" else "FAILED")
    payment = await shop.look(payment)
    after = await offers(shop.workers[0], CASE)
    assert after == await fresh_offers(shop, CASE)
    assert (after != before) is (end == "SUCCEEDED"), "only a success has spent the coupon"


@pytest.mark.virtual_time
async def test_a_declined_payer_leaves_the_shared_channel_list_alone(shop: Checkout) -> None:
    payment = await shop.pay(CASE, "WALLET:ALIPAY")
    await shop.consult(CASE)
    shop.settle(payment, "FAILED")
    assert (await shop.look(payment)).status is PaymentStatus.FAILED
    assert {"channel", "merchant"} <= cached_sources(await shop.consult(CASE))


@pytest.mark.moves("cashier_payment_lessons_total")
@pytest.mark.virtual_time
async def test_an_ended_payment_teaches_once(shop: Checkout) -> None:
    payment = await shop.pay(CASE, "WALLET:ALIPAY")
    shop.settle(payment, "FAILED")
    for _ in range(5):
        await shop.look(payment)
    assert shop.payments._learning._counts.lessons.value == 2, "the submit and the end"
    assert "member" in cached_sources(await shop.consult(CASE)) or "member" in cached_sources(await shop.consult(CASE))


@pytest.mark.virtual_time
async def test_an_answer_that_was_on_its_way_is_not_kept(shop: Checkout) -> None:
    """It left the card centre before the card was unbound."""
    request = await shop.new_request(CASE, "QUICK_PAY:c_2")
    shop.workers[0].invalidate("card", prefix="")
    held = asyncio.Event()
    person = shop.world.population.user("u_1")
    assert person is not None
    assert person.cards is not None
    sources: dict[str, Any] = {name: shop._sources[name] for name in shop._sources}
    shop._sources, original = sources, sources["card"]  # type: ignore[assignment]

    async def slow_first(**inputs: Any) -> Any:
        answer = msgspec.json.decode(msgspec.json.encode(await original(**inputs)))
        sources["card"] = original
        await held.wait()
        return answer

    sources["card"] = slow_first
    consulting = asyncio.create_task(shop.consult(CASE))
    await asyncio.sleep(0.001)
    person.cards[1]["status"] = "UNBOUND"
    with pytest.raises(ConsultChanged):
        await shop.submit(request)
    held.set()
    assert method_by_id(await consulting, "QUICK_PAY:c_2").availability is Availability.AVAILABLE
    reason = method_by_id(await shop.consult(CASE), "QUICK_PAY:c_2").reason
    assert reason is not None
    assert reason.code is ReasonCode.CARD_UNBOUND


async def test_what_one_worker_learned_reaches_the_other_over_valkey() -> None:
    with valkey_server() as server:
        shop = Checkout({})
        settings = {
            "tokens": {"secrets": ("s" * 32,)},
            "consult": {"deadline_ms": 20_000, "max_deadline_ms": 20_000},
            "accept": {"check_ms": 20_000},
            "cache": {"shared": server.url},
        }
        config = configuration(settings, "")
        async with shop.add_worker(config) as one, shop.add_worker(config) as other:
            for cashier in (one, other):
                for _ in range(2):
                    await cashier.consult(request_of(CASE))
            assert "card" in cached_sources(await other.consult(request_of(CASE)))
            request = await shop.new_request(CASE, "QUICK_PAY:c_2")
            person = shop.world.population.user("u_1")
            assert person is not None
            assert person.cards is not None
            person.cards[1]["status"] = "UNBOUND"
            with pytest.raises(ConsultChanged):
                await shop.submit(request)
            dropped = other.pipelines["card"].cache
            await until(lambda: len(dropped) == 0)
            for cashier in (one, other):
                method = method_by_id(await cashier.consult(request_of(CASE)), "QUICK_PAY:c_2")
                assert method.reason is not None
                assert method.reason.code is ReasonCode.CARD_UNBOUND
                assert method.rank != 1


@pytest.mark.virtual_time
async def test_a_broken_shared_cache_delays_no_payment(shop: Checkout) -> None:
    """The message is queued; the payment does not wait for it."""
    dropped: list[tuple[str, str | None, str | None]] = []

    class Level:
        def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
            dropped.append((source, key, prefix))

    invalidation = CacheInvalidation(shop.workers[0].pipelines, Level())  # type: ignore[arg-type]
    shop.payments._learning._forget = invalidation.forget
    payment = await shop.pay(CASE, "WALLET:ALIPAY")
    assert ("member", None, "u_1/") in dropped
    assert ("marketing", None, "u_1/") in dropped
    assert not [drop for drop in dropped if drop[0] in ("balance", "quota", "order")], "those keep nothing"
    assert repr(invalidation).startswith("<CacheInvalidation {")
    await shop.cancel(payment)


def test_the_key_of_each_source_begins_with_its_subject_and_each_source_changes_with_something() -> None:
    request = structs.replace(
        request_of(CASE), amount=Money("CNY", 1), country="CN", user_id="u/1%", order_id="o/1", merchant_id="m/1"
    )
    known = known_inputs(request)
    for spec in SOURCE_SPECS:
        assert spec.changes_with <= set(FactGroup)
        assert spec.changes_with
        if spec.subject is not None:
            assert f"{key_text(spec.key(known))}/".startswith(f"{key_text(known[spec.subject])}/")
            assert FactGroup.MARKET not in spec.changes_with


@pytest.mark.virtual_time
@pytest.mark.parametrize(("country", "dropped"), [("CN", 1), (None, 1), ("US", 0)])
async def test_the_facts_of_a_market_are_dropped_for_its_country(
    shop: Checkout, country: str | None, dropped: int
) -> None:
    await shop.consult(CASE)
    invalidation = CacheInvalidation(shop.workers[0].pipelines, None)
    request = structs.replace(request_of(CASE), amount=Money("CNY", 1), country=country)
    invalidation.forget(frozenset({FactGroup.MARKET}), request)
    assert invalidation.forgotten == {"channel": dropped}


@pytest.mark.virtual_time
async def test_the_memory_of_lessons_is_bounded(shop: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.payments.learning.MAX_ENDED", 1)
    for case in (CASE, OTHER_ORDER):
        payment = await shop.pay(case, "WALLET:ALIPAY")
        await shop.cancel(payment)
    learning = shop.payments._learning
    assert isinstance(learning, Learning)
    assert len(learning._ended) == 1
    assert repr(learning) == "<Learning lessons=4>"
