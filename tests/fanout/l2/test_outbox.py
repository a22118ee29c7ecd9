"""The queue of invalidations: in order, bounded, and without a loss."""

from __future__ import annotations

import asyncio

from cashier.fanout.l2.invalidation import Invalidation
from cashier.fanout.l2.outbox import Outbox


def of(key: str, source: str = "card") -> Invalidation:
    return Invalidation(source, key, None)


def everything(source: str) -> Invalidation:
    return Invalidation(source, None, "")


def taken(outbox: Outbox, most: int = 100) -> list[tuple[Invalidation, bool]]:
    return [(each.invalidation, each.publish) for each in outbox.take(most)]


def test_invalidations_are_first_in_first_out() -> None:
    outbox = Outbox(10)
    for key in "abc":
        outbox.add(of(key), publish=True)
    assert taken(outbox, 2) == [(of("a"), True), (of("b"), True)]
    assert taken(outbox, 2) == [(of("c"), True)]
    assert taken(outbox) == []


async def test_equal_ones_merge_and_publish_if_either_does() -> None:
    outbox = Outbox(10)
    waiters = [asyncio.get_running_loop().create_future() for _ in range(2)]
    outbox.add(of("a"), publish=False, waiter=waiters[0])
    outbox.add(of("a"), publish=True, waiter=waiters[1])
    (outgoing,) = outbox.take(10)
    assert outgoing.publish
    waiters[0].cancel()
    outgoing.resolve()
    outgoing.resolve()
    assert waiters[0].cancelled()
    assert waiters[1].result()


async def test_too_many_merge_into_one_per_source_with_all_their_waiters() -> None:
    outbox = Outbox(3)
    waiters = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for key, waiter in zip("abc", waiters, strict=True):
        outbox.add(of(key), publish=key == "b", waiter=waiter)
    outbox.add(of("u", "member"), publish=False)
    assert outbox.by_source() == {"card": 1, "member": 1}
    card, member = outbox.take(10)
    assert (card.invalidation, card.publish) == (everything("card"), True)
    assert (member.invalidation, member.publish) == (everything("member"), False)
    card.resolve()
    assert all(waiter.result() for waiter in waiters)


def test_what_failed_is_the_first_again() -> None:
    outbox = Outbox(10)
    for key in "abc":
        outbox.add(of(key), publish=True)
    failed = outbox.take(2)
    outbox.add(of("a"), publish=True)
    outbox.requeue(failed)
    assert [invalidation.key for invalidation, _ in taken(outbox)] == ["a", "b", "c"]


def test_an_invalidation_is_confirmed_when_it_is_stored_and_its_message_came_back() -> None:
    outbox = Outbox(10)
    outbox.add(of("a"), publish=True)
    outbox.add(of("b"), publish=False)
    published, stored_only = outbox.take(2)
    published.stored = stored_only.stored = True
    assert (published.confirmed, stored_only.confirmed) == (False, True)
    published.returned = True
    assert published.confirmed
