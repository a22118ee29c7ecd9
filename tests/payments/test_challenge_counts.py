"""New keys bring no new challenges without end: a bound per order and payer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from cashier.domain.payment_state import PaymentStatus
from cashier.payments import attempt_leases, challenge_counts
from cashier.payments.attempt import attempt_from_request
from cashier.payments.attempt_leases import AttemptLeases
from cashier.payments.challenge_counts import WINDOW_S, ChallengeCounts
from cashier.payments.errors import AcceptError, RiskRejected
from cashier.payments.policy import Operation
from tests.fanout.l2.valkey_server import l2_worker, raw_client, valkey_server
from tests.payments.checkout import Checkout, SharedStore, checkout

CASE, CARD = "chinese_shop", "QUICK_PAY:c_2"
BOUND = 3


async def challenge(shop: Checkout, key: str, worker: int = 0) -> None:
    payment = await shop.submit(await shop.new_request(CASE, CARD), key, worker)
    assert payment.status is PaymentStatus.CHALLENGE


@pytest.mark.moves("cashier_challenges_refused_total")
@pytest.mark.virtual_time
@pytest.mark.parametrize("shared", [False, True])
async def test_beyond_the_bound_risk_is_not_asked(shared: bool) -> None:
    store = SharedStore() if shared else None
    async with checkout(workers=2, store=store, most_challenges=BOUND) as shop:
        for number in range(BOUND):
            await challenge(shop, f"k{number}", worker=number % 2 if shared else 0)
        shop.reset_counts()
        request = await shop.new_request(CASE, CARD)
        for worker in (0, 1) if shared else (0,):
            with pytest.raises(RiskRejected) as rejected:
                await shop.submit(request, f"another{worker}", worker)
            assert rejected.value.code == "TOO_MANY_CHALLENGES"
        assert shop.count("decide") == 0
        assert shop.payments._challenge_counts._counts.challenges_refused.value == 1
        await asyncio.sleep(WINDOW_S)
        if store is not None:
            store.sets.clear()
        await challenge(shop, "later")


@pytest.mark.virtual_time
async def test_many_keys_at_once_bring_no_more_than_the_bound() -> None:
    async with checkout(most_challenges=BOUND) as shop:
        request = await shop.new_request(CASE, CARD)
        shop.reset_counts()
        results = await asyncio.gather(*(shop.submit(request, f"k{n}") for n in range(30)), return_exceptions=True)
        assert shop.count("decide") == BOUND
        refused = [result for result in results if isinstance(result, BaseException)]
        assert len(refused) == 30 - BOUND
        assert all(isinstance(result, AcceptError) for result in refused)


@pytest.mark.virtual_time
async def test_the_last_challenge_can_still_be_answered() -> None:
    async with checkout(most_challenges=1) as shop:
        payment = await shop.pay(CASE, CARD)
        assert (await shop.answer(payment)).status is PaymentStatus.SUCCEEDED


@pytest.mark.virtual_time
async def test_another_payer_and_another_order_have_their_own(shop: Checkout) -> None:
    request = await shop.new_request(CASE, CARD)
    payments = shop.payments
    claims = payments._tokens.read_consult_token(request.consult_token)
    operation = Operation(replace(payments.policy, settings=replace(payments.policy.settings, most_challenges=1)), None)
    mine = attempt_from_request(request, "k1", claims, operation)
    counts = ChallengeCounts(AttemptLeases(SharedStore()))
    await counts.add(mine, "challenge_1")
    with pytest.raises(RiskRejected):
        await counts.require_fewer(mine)
    for fields in ({"user_id": "u_2"}, {"order_id": "o_2"}, {"merchant_id": "m_2"}, {"merchant_id": "m_1/o_1001"}):
        await counts.require_fewer(replace(mine, chosen=replace(mine.chosen, **fields)))


@pytest.mark.virtual_time
async def test_the_same_challenge_again_counts_once_and_the_memory_is_bounded(
    shop: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(challenge_counts, "MOST_COUNTED", 2)
    request = await shop.new_request(CASE, CARD)
    claims = shop.payments._tokens.read_consult_token(request.consult_token)
    mine = attempt_from_request(request, "k1", claims, Operation(shop.payments.policy, None))
    counts = ChallengeCounts(AttemptLeases(None))
    for _ in range(50):
        await counts.add(mine, "challenge_1")
    await counts.require_fewer(mine)
    for number in range(5):
        await counts.add(replace(mine, chosen=replace(mine.chosen, order_id=f"o_{number}")), "challenge_1")
    assert repr(counts) == "<ChallengeCounts 2 refused=0>"


async def test_a_set_in_valkey_counts_members_once_and_ends_after_its_time() -> None:
    with valkey_server() as server:
        async with raw_client(server) as client, l2_worker(server) as first, l2_worker(server) as second:
            one, other = AttemptLeases(first.level), AttemptLeases(second.level)
            key = attempt_leases._store_key("c").decode()
            assert await one.count("c") == 0
            assert await client.exists(key) == 0, "asking stores nothing"
            assert [await leases.count("c", "a", 60_000) for leases in (one, other)] == [1, 1]
            assert await other.count("c", "b", 600_000) == 2
            assert await one.count("c") == 2
            assert 0 < await client.pttl(key) <= 60_000, "from the first member on"
            await client.delete(key)
            await client.sadd(key, "planted")
            assert await one.count("c") == 1
            assert await client.pttl(key) > 0, "no member stays for ever"
            await client.delete(key)
            assert await one.count("c") == 0, "evicted"
            await client.set(key, "a text")
            assert await one.count("c", "a", 60_000) == 0, "no usable answer"
            server.kill()
            assert await one.count("c", "a", 60_000) == 0


@pytest.mark.parametrize("reply", [None, True, b"3", [], "3"])
async def test_a_reply_that_is_no_number_counts_nothing(reply: Any) -> None:
    class Store:
        async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
            return reply

    assert await AttemptLeases(Store()).count("c", "a") == 0
