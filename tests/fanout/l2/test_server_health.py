"""When an optional server counts as lost."""

from __future__ import annotations

from cashier.fanout.l2.server_health import ServerHealth


def good() -> ServerHealth:
    standing = ServerHealth()
    standing.record_recovery()
    return standing


def test_a_server_is_unavailable_before_its_first_recovery() -> None:
    standing = ServerHealth()
    assert not standing.available
    standing.record_recovery()
    assert standing.available


def test_one_failure_loses_the_server_and_only_the_first_counts() -> None:
    standing = good()
    assert standing.record_failure()
    assert not standing.record_failure()
    assert not standing.available
    assert "lost" in repr(standing)


def test_three_slow_answers_in_a_row_lose_the_server() -> None:
    standing = good()
    assert [standing.record_slow(began, began + 1) for began in range(3)] == [False, False, True]
    assert not standing.record_slow(3, 4), "it was lost already"


def test_a_fast_answer_ends_the_row() -> None:
    standing = good()
    for began in range(10):
        assert not standing.record_slow(began, began + 0.5)
        standing.record_fast()
    assert standing.available


def test_concurrent_slow_answers_count_once() -> None:
    standing = good()
    assert not any(standing.record_slow(began / 100, 1) for began in range(100))
    assert not standing.record_slow(1, 2)
    assert standing.record_slow(2, 3)


def test_slow_answers_are_forgotten_on_recovery() -> None:
    standing = good()
    for began in range(3):
        standing.record_slow(began, began + 1)
    standing.record_recovery()
    assert not standing.record_slow(10, 11)
