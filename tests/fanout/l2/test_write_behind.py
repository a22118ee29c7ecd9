"""The write-behind queue: in order, bounded, without lost deletes."""

from __future__ import annotations

from cashier.fanout.l2.entry_codec import StoredAnswer
from cashier.fanout.l2.write_behind import Drop, Put, WriteBehind


def put(key: str, born_ms: int = 0) -> Put:
    return Put("card", key, StoredAnswer(False, b"{}", born_ms, 1000))


def drop(key: str, source: str = "card", *, publish: bool = True) -> Drop:
    return Drop(source, key, None, publish)


def all_of(queue: WriteBehind) -> list[Put | Drop]:
    return list(iter(queue.take, None))


def test_puts_and_drops_are_first_in_first_out() -> None:
    queue = WriteBehind(10)
    assert queue.put(put("a"))
    queue.drop(drop("a"))
    assert queue.put(put("b"))
    assert all_of(queue) == [put("a"), drop("a"), put("b")]
    assert queue.take() is None


def test_of_two_answers_for_one_key_the_younger_is_written() -> None:
    queue = WriteBehind(10)
    for born_ms in (5, 7, 6):
        assert queue.put(put("a", born_ms))
    assert all_of(queue) == [put("a", 7)]


def test_a_younger_answer_queues_behind_a_delete_in_between() -> None:
    queue = WriteBehind(10)
    queue.put(put("a", 5))
    queue.drop(drop("a"))
    queue.put(put("a", 7))
    assert all_of(queue) == [drop("a"), put("a", 7)]


def test_two_drops_of_one_key_merge_and_publish_if_either_does() -> None:
    queue = WriteBehind(10)
    queue.drop(drop("a"))
    queue.put(put("a", 1))
    queue.drop(drop("a", publish=False))
    assert all_of(queue) == [put("a", 1), drop("a")]


def test_beyond_the_capacity_puts_are_refused_and_drops_are_not() -> None:
    queue = WriteBehind(2)
    queue.drop(drop("x"))
    assert [queue.put(put(key)) for key in "abc"] == [True, True, False]
    assert queue.put(put("a", 1)), "it must replace the queued one"
    queue.drop(drop("y"))
    assert "puts=2 drops=2" in repr(queue)


def test_too_many_drops_merge_into_one_per_source() -> None:
    queue = WriteBehind(3)
    queue.put(put("a"))
    for key in "abc":
        queue.drop(drop(key, publish=key == "b"))
    queue.drop(drop("u", "member", publish=False))
    queue.drop(drop("v", "member", publish=False))
    assert all_of(queue) == [
        put("a"),
        Drop("card", None, "", publish=True),
        drop("u", "member", publish=False),
        drop("v", "member", publish=False),
    ]
    assert len(queue) == 0


def test_a_requeued_drop_is_the_first_again() -> None:
    queue = WriteBehind(10)
    queue.drop(drop("a"))
    queue.put(put("b"))
    failed = queue.take()
    assert isinstance(failed, Drop)
    queue.requeue(failed)
    assert all_of(queue) == [drop("a"), put("b")]


def test_a_requeued_drop_that_was_queued_again_is_executed_once() -> None:
    queue = WriteBehind(10)
    queue.put(put("b"))
    queue.drop(drop("a", publish=False))
    queue.requeue(drop("a"))
    assert all_of(queue) == [put("b"), drop("a")]


def test_forgetting_puts_keeps_drops() -> None:
    queue = WriteBehind(2)
    queue.put(put("a"))
    queue.drop(drop("a"))
    queue.put(put("b"))
    assert queue.forget_puts() == 2
    assert all_of(queue) == [drop("a")]
    assert queue.put(put("c"))
