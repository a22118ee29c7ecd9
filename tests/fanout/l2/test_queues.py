"""The queues to the second level, of invalidations and of answers: in order and bounded."""

from __future__ import annotations

import asyncio

from cashier.fanout.l2.entry_codec import StoredAnswer
from cashier.fanout.l2.invalidation import QueuedInvalidation
from cashier.fanout.l2.outbox import Outbox
from cashier.fanout.l2.write_behind import Put, WriteBehind


def of(key: str, source: str = "card") -> QueuedInvalidation:
    return QueuedInvalidation(source, key, None)


def everything(source: str) -> QueuedInvalidation:
    return QueuedInvalidation(source, None, "")


def taken(outbox: Outbox, most: int = 100) -> list[tuple[QueuedInvalidation, bool]]:
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


def put(key: str, born_ms: int = 0) -> Put:
    return Put("card", key, StoredAnswer(False, b"{}", born_ms, 1000), b"version")


def all_of(queue: WriteBehind) -> list[Put]:
    return list(iter(queue.take, None))


def test_puts_are_first_in_first_out() -> None:
    queue = WriteBehind(10)
    assert all(queue.put(put(key)) for key in "abc")
    assert all_of(queue) == [put("a"), put("b"), put("c")]
    assert queue.take() is None


def test_of_two_answers_for_one_key_the_younger_is_written() -> None:
    queue = WriteBehind(10)
    for born_ms in (5, 7, 6):
        assert queue.put(put("a", born_ms))
    assert all_of(queue) == [put("a", 7)]


def test_beyond_the_capacity_puts_are_refused_but_for_younger_answers() -> None:
    queue = WriteBehind(2)
    assert [queue.put(put(key)) for key in "abc"] == [True, True, False]
    assert queue.put(put("a", 1)), "it must replace the queued one"
    assert "2 of 2" in repr(queue)
    assert all_of(queue) == [put("b"), put("a", 1)]


def test_a_cleared_queue_has_room() -> None:
    queue = WriteBehind(2)
    queue.put(put("a"))
    queue.put(put("b"))
    assert queue.clear() == 2
    assert queue.put(put("c"))
    assert all_of(queue) == [put("c")]
