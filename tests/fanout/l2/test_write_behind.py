"""The write-behind queue: in order, and bounded."""

from __future__ import annotations

from cashier.fanout.l2.entry_codec import StoredAnswer
from cashier.fanout.l2.write_behind import Put, WriteBehind


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
