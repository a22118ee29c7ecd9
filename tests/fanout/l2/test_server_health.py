"""When an optional server counts as lost."""

from __future__ import annotations

from cashier.fanout.l2.server_health import ServerHealth


def good() -> ServerHealth:
    health = ServerHealth()
    health.record_recovery()
    return health


def test_a_server_is_unavailable_before_its_first_recovery() -> None:
    health = ServerHealth()
    assert not health.available
    health.record_recovery()
    assert health.available


def test_one_failure_loses_the_server_and_only_the_first_counts() -> None:
    health = good()
    assert health.record_failure()
    assert not health.record_failure()
    assert not health.available
    assert "lost" in repr(health)


def test_three_slow_answers_in_a_row_lose_the_server() -> None:
    health = good()
    assert [health.record_slow(started, started + 1) for started in range(3)] == [False, False, True]
    assert not health.record_slow(3, 4), "it was lost already"


def test_a_fast_answer_ends_the_row() -> None:
    health = good()
    for started in range(10):
        assert not health.record_slow(started, started + 0.5)
        health.record_fast()
    assert health.available


def test_concurrent_slow_answers_count_once() -> None:
    health = good()
    assert not any(health.record_slow(started / 100, 1) for started in range(100))
    assert not health.record_slow(1, 2)
    assert health.record_slow(2, 3)


def test_slow_answers_are_forgotten_on_recovery() -> None:
    health = good()
    for started in range(3):
        health.record_slow(started, started + 1)
    health.record_recovery()
    assert not health.record_slow(10, 11)
