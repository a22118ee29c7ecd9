"""Lookups of names: shared, on threads of their own, with the last known addresses kept."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.wire.resolver import (
    LookupThreads,
    Resolution,
    ResolvedAddress,
    ResolvedName,
    Resolver,
    is_literal,
    system_addresses,
)
from tests.wire.scripted_names import Names, resolution

NOT_FOUND = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
HERE, THERE = resolution("10.0.0.1"), resolution("10.0.0.2")


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def wait(name: ResolvedName, timeout_s: float = 1.0) -> Resolution:
    return await name.wait(30, timeout_s)


@pytest.mark.looptime
async def test_all_who_wait_share_one_lookup() -> None:
    names = Names(card=HERE)
    names.delay_s = 0.4
    name = names.resolver.name("card")
    assert await asyncio.gather(*(wait(names.resolver.name("card")) for _ in range(50))) == [HERE] * 50
    assert names.started == {"card": 1}
    assert await wait(name) == HERE
    assert names.started == {"card": 1}


@pytest.mark.looptime
async def test_an_abandoned_wait_does_not_abandon_the_lookup() -> None:
    names = Names(card=HERE)
    names.delay_s = 8.0
    name = names.resolver.name("card")
    with pytest.raises(TimeoutError, match="not resolved within 1000 ms"):
        await wait(name)
    impatient = asyncio.create_task(wait(name, 100))
    await asyncio.sleep(1)
    impatient.cancel()
    assert await wait(name, 100) == HERE
    assert now_s() == pytest.approx(8.0)
    assert names.started == {"card": 1}


@pytest.mark.looptime
async def test_a_hung_name_does_not_delay_another() -> None:
    names = Names(card=HERE)
    hung = asyncio.create_task(wait(names.resolver.name("slow"), 100))
    assert await wait(names.resolver.name("card")) == HERE
    assert now_s() == 0
    hung.cancel()
    names.release("slow", THERE)
    assert await wait(names.resolver.name("slow")) == THERE


@pytest.mark.looptime
@pytest.mark.parametrize("then", ["hangs", "fails", "is empty"])
async def test_the_last_known_addresses_are_used_while_a_lookup_gives_none(then: str) -> None:
    names = Names(card=HERE)
    name = names.resolver.name("card")
    await wait(name)
    if then == "hangs":
        names.hang("card")
    else:
        names.answers["card"] = NOT_FOUND if then == "fails" else Resolution(())
    for _ in range(20):
        await asyncio.sleep(31)
        before_s = now_s()
        assert await wait(name) == HERE
        # Only the first connect after a time without use waits, and not long.
        assert now_s() - before_s <= 0.25
        before_s = now_s()
        assert await asyncio.gather(*(wait(name) for _ in range(5))) == [HERE] * 5
        assert now_s() == before_s
    assert names.at_once == 1
    names.release("card", THERE)
    await asyncio.sleep(31)
    await wait(name)
    await asyncio.sleep(0.01)
    assert await wait(name) == THERE


@pytest.mark.looptime
async def test_addresses_that_are_just_outdated_are_used_during_the_lookup() -> None:
    names = Names(card=HERE)
    name = names.resolver.name("card")
    await wait(name)
    await asyncio.sleep(31)
    names.answers["card"], names.delay_s = THERE, 0.1
    before_s = now_s()
    assert await wait(name) == HERE
    assert now_s() == before_s
    await asyncio.sleep(0.2)
    assert await wait(name) == THERE


@pytest.mark.looptime
async def test_addresses_long_outdated_wait_for_the_lookup() -> None:
    names = Names(card=HERE)
    name = names.resolver.name("card")
    await wait(name)
    await asyncio.sleep(3600)
    names.answers["card"], names.delay_s = THERE, 0.1
    assert await wait(name) == THERE


@pytest.mark.looptime
async def test_a_failed_lookup_is_remembered_for_moments_only() -> None:
    names = Names(card=NOT_FOUND)
    name = names.resolver.name("card")
    for _ in range(100):
        with pytest.raises(OSError, match="Name or service not known"):
            await wait(name)
    assert names.started["card"] == 1
    names.answers["card"] = HERE
    await asyncio.sleep(0.1)
    assert await wait(name) == HERE


@pytest.mark.looptime
async def test_a_name_that_never_resolves_is_looked_up_every_five_seconds_at_most() -> None:
    names = Names(card=NOT_FOUND)
    name = names.resolver.name("card")
    for _ in range(1_000):
        with pytest.raises(OSError, match="not known"):
            await wait(name)
        await asyncio.sleep(0.1)
    assert 20 <= names.started["card"] <= 30


@pytest.mark.looptime
async def test_a_time_to_live_shortens_how_long_addresses_are_fresh() -> None:
    names = Names(card=resolution("10.0.0.1", ttl_s=5), quick=resolution("10.0.0.1", ttl_s=0))
    name, quick = names.resolver.name("card"), names.resolver.name("quick")
    await asyncio.gather(wait(name), wait(quick))
    await asyncio.sleep(0.9)
    assert (name.fresh(30), quick.fresh(30)) == (True, True)
    await asyncio.sleep(4)
    assert (name.fresh(30), quick.fresh(30)) == (True, False)
    await asyncio.sleep(0.2)
    assert not name.fresh(30)


@pytest.mark.looptime
@given(st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "::1", "fe80::1%2"]), min_size=1, max_size=400))
async def test_duplicates_are_one_address_and_the_order_stays(ips: list[str]) -> None:
    names = Names(card=resolution(*ips))
    known = await wait(names.resolver.name("card"))
    assert [address.ip for address in known.addresses] == list(dict.fromkeys(ips))


@pytest.mark.looptime
async def test_a_bug_of_a_lookup_is_reported_and_is_a_failed_lookup() -> None:
    bugs: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))

    async def buggy(_host: str) -> Resolution:
        raise LookupError("ours")

    with pytest.raises(OSError, match="LookupError"):
        await wait(Resolver(buggy).name("card"))
    assert [str(bug) for bug in bugs] == ["ours"]


@pytest.mark.looptime
async def test_the_last_watcher_ends_the_lookup_with_it() -> None:
    names = Names()
    name = names.resolver.name("card")
    seen: list[Resolution] = []
    other: list[Resolution] = []
    on_resolution, on_other = seen.append, other.append
    name.watch(on_resolution)
    name.watch(on_other)
    lookup = name.refresh()
    assert lookup is not None
    await asyncio.sleep(0)
    name.unwatch(on_other)
    names.release("card", HERE)
    await lookup
    assert (seen, other) == ([HERE], [])
    await asyncio.sleep(60)
    names.hang("card")
    lookup = name.refresh()
    assert lookup is not None
    name.unwatch(on_resolution)
    with pytest.raises(asyncio.CancelledError):
        await lookup


class BlockingLookup:
    """Blocks in its thread until the test ends. Names in `quick` are answered at once."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, host: str) -> Resolution:
        if host == "quick":
            return HERE
        self.entered.release()
        self.ended.wait()
        raise NOT_FOUND


@pytest.fixture
def blocking() -> Iterator[BlockingLookup]:
    lookup = BlockingLookup()
    yield lookup
    lookup.ended.set()


async def test_hung_lookups_leave_the_loop_and_its_threads_to_others(blocking: BlockingLookup) -> None:
    threads = LookupThreads(blocking)
    hung = [asyncio.create_task(threads(f"hung{number}")) for number in range(40)]
    for _ in hung:
        await asyncio.to_thread(blocking.entered.acquire, timeout=30)
    assert await threads("quick") == HERE
    assert await asyncio.to_thread(lambda: "free") == "free"
    running = [thread for thread in threading.enumerate() if thread.name.startswith("look up hung")]
    assert len(running) == 40
    assert all(thread.daemon for thread in running)
    for task in hung:
        task.cancel()
    await asyncio.gather(*hung, return_exceptions=True)


async def test_lookup_threads_are_bounded_and_free_again_after_a_failure(blocking: BlockingLookup) -> None:
    threads = LookupThreads(blocking, most=2)
    hung = [asyncio.create_task(threads(f"hung{number}")) for number in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="too many lookups"):
        await threads("quick")
    blocking.ended.set()
    assert await asyncio.gather(*hung, return_exceptions=True) == [NOT_FOUND] * 2
    assert await threads("quick") == HERE


async def test_the_system_resolves_localhost() -> None:
    known = await wait(Resolver().name("localhost"), 30)
    assert {address.ip for address in known.addresses} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64])
async def test_a_name_that_the_system_does_not_know_is_an_error(host: str) -> None:
    with pytest.raises(OSError, match=r"\w"):
        await wait(Resolver().name(host), 30)


def test_a_zone_is_kept_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is sure to have a link-local name."""
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 0, 0, 2)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)
    assert system_addresses("printer.local") == resolution("fe80::1%2", "2001:db8::1", "10.0.0.1")


@pytest.mark.parametrize(
    ("host", "literal"),
    [
        ("127.0.0.1", True), ("::1", True), ("fe80::1%eth0", True), ("::ffff:10.0.0.1", True),
        ("localhost", False), ("card.", False), ("10.0.0", False), ("xn--bcher-kva.example", False),
    ],
)  # fmt: skip
def test_a_literal_address_is_known_without_a_lookup(host: str, *, literal: bool) -> None:
    assert is_literal(host) is literal


def test_a_name_shows_its_state() -> None:
    assert repr(Names().resolver.name("card")) == "<card: not resolved>"
    assert ResolvedAddress("10.0.0.1") == ResolvedAddress("10.0.0.1", None)
