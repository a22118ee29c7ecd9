"""A guarded source whose addresses change while calls are in flight."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cashier.fanout.guard import Guard
from cashier.source_errors import Unreachable
from tests.fanout.scripted_upstream import (
    Reply,
    ScriptedCall,
    ScriptedUpstream,
    ask,
    guarded,
    pass_ms,
    run_in_virtual_time,
)

DOWN = Reply(1, Unreachable("refused"))


def change(guard: Guard, upstream: ScriptedUpstream, addresses: tuple[str, ...]) -> None:
    """As a transport does: the calls in flight take the new indexes at the same time."""
    before, upstream.addresses = upstream.addresses, addresses
    for call in upstream.calls:
        name = before[call.address_index] if call.address_index >= 0 else ""
        call.address_index = addresses.index(name) if name in addresses else -1
    guard.set_addresses(addresses)


def test_an_address_that_stays_keeps_what_was_learned_and_a_new_one_starts_afresh() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(lambda call: DOWN if call.address_index == 0 else Reply(5), 2)
        guard = guarded(upstream)
        for _ in range(200):
            ask(guard.start)
            await pass_ms(10)
        bad, good = guard.endpoints
        assert (bad.breaker.closed, good.breaker.closed) == (False, True)
        change(guard, upstream, ("address 1", "address 2", "address 0"))
        assert guard.endpoints[0] is good
        assert guard.endpoints[2] is bad
        assert guard.endpoints[1].breaker.closed
        assert not guard.endpoints[2].breaker.closed
        guard.close()

    run_in_virtual_time(main)


def test_a_call_to_a_vanished_address_ends_where_it_began() -> None:
    async def main() -> None:
        upstream = ScriptedUpstream(Reply(50), 2)
        guard = guarded(upstream)
        askers = [ask(guard.start) for _ in range(4)]
        gone, kept = guard.endpoints
        assert (gone.in_flight, kept.in_flight) == (2, 2)
        change(guard, upstream, ("address 1",))
        assert guard.endpoints == (kept,)
        askers += [ask(guard.start) for _ in range(3)]
        assert (gone.in_flight, kept.in_flight) == (2, 5)
        await pass_ms(60)
        assert [asker.outcome for asker in askers] == ["an answer"] * 7
        assert (gone.in_flight, kept.in_flight) == (0, 0)
        guard.close()

    run_in_virtual_time(main)


names = st.lists(st.sampled_from([f"address {index}" for index in range(5)]), min_size=1, max_size=5, unique=True)


@given(st.lists(st.tuples(names, st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=15), st.integers(0, 99))
def test_no_sequence_of_changes_unbalances_the_counts(steps: list[tuple[list[str], int, int]], seed: int) -> None:
    async def main() -> None:
        random = Random(seed)

        def script(_call: ScriptedCall) -> Reply:
            return random.choice([Reply(2), Reply(30), Reply(200), DOWN, Reply(None)])

        upstream = ScriptedUpstream(script, 2)
        guard = guarded(upstream)
        endpoints = set(guard.endpoints)
        askers = []
        for addresses, calls, ms in steps:
            askers += [ask(guard.start) for _ in range(calls)]
            await pass_ms(ms)
            change(guard, upstream, tuple(addresses))
            endpoints |= set(guard.endpoints)
            assert [endpoint.name for endpoint in guard.endpoints] == addresses
        for asker in askers:
            asker.leave()
        await pass_ms(5_000)
        guard.close()
        assert [endpoint.in_flight for endpoint in endpoints] == [0] * len(endpoints)

    run_in_virtual_time(main)
