"""The queue before a shared store: in order, bounded, and its deletes are never lost."""

from __future__ import annotations

from cashier.fanout.l2.entry_codec import StoredAnswer
from cashier.fanout.l2.write_behind import Drop, Put, WriteBehind


def put(key: str, born_ms: int = 0) -> Put:
    return Put("card", key, StoredAnswer(False, b"{}", born_ms, 1000))


def drop(key: str, source: str = "card", *, publish: bool = True) -> Drop:
    return Drop(source, key, None, publish)


def all_of(queue: WriteBehind) -> list[Put | Drop]:
    return list(iter(queue.take, None))


def test_first_in_first_out_whatever_it_is() -> None:
    queue = WriteBehind(10)
    assert queue.put(put("a"))
    queue.drop(drop("a"))
    assert queue.put(put("b"))
    assert all_of(queue) == [put("a"), drop("a"), put("b")]
    assert queue.take() is None


def test_of_two_answers_to_one_question_the_younger_is_written() -> None:
    queue = WriteBehind(10)
    for born_ms in (5, 7, 6):
        assert queue.put(put("a", born_ms))
    assert all_of(queue) == [put("a", 7)]


def test_the_younger_answer_is_behind_a_delete_that_came_between() -> None:
    queue = WriteBehind(10)
    queue.put(put("a", 5))
    queue.drop(drop("a"))
    queue.put(put("a", 7))
    assert all_of(queue) == [drop("a"), put("a", 7)]


def test_two_deletes_of_one_key_are_one_that_is_told_if_either_is() -> None:
    queue = WriteBehind(10)
    queue.drop(drop("a"))
    queue.put(put("a", 1))
    queue.drop(drop("a", publish=False))
    assert all_of(queue) == [put("a", 1), drop("a")]


def test_beyond_the_capacity_puts_are_refused_and_deletes_are_not() -> None:
    queue = WriteBehind(2)
    queue.drop(drop("x"))
    assert [queue.put(put(key)) for key in "abc"] == [True, True, False]
    assert queue.put(put("a", 1)), "it takes the place of one that is queued"
    queue.drop(drop("y"))
    assert "puts=2 drops=2" in repr(queue)


def test_too_many_deletes_become_one_for_the_whole_of_a_source() -> None:
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


def test_a_delete_that_failed_is_the_first_again() -> None:
    queue = WriteBehind(10)
    queue.drop(drop("a"))
    queue.put(put("b"))
    failed = queue.take()
    assert isinstance(failed, Drop)
    queue.requeue(failed)
    assert all_of(queue) == [drop("a"), put("b")]


def test_a_delete_that_failed_and_was_asked_for_again_is_not_made_twice() -> None:
    queue = WriteBehind(10)
    queue.put(put("b"))
    queue.drop(drop("a", publish=False))
    queue.requeue(drop("a"))
    assert all_of(queue) == [put("b"), drop("a")]


def test_puts_can_be_forgotten_and_deletes_stay() -> None:
    queue = WriteBehind(2)
    queue.put(put("a"))
    queue.drop(drop("a"))
    queue.put(put("b"))
    assert queue.forget_puts() == 2
    assert all_of(queue) == [drop("a")]
    assert queue.put(put("c"))
