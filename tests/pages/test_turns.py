"""Rendering in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cashier.pages import turns
from cashier.pages.turns import in_turns
from tests.pages.gallery import gallery, rendering

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize(("piece_ns", "most_pieces"), [(1_000, 200), (50_000, 4), (10**9, 1)])
async def test_what_is_due_waits_for_one_turn_at_most(
    monkeypatch: pytest.MonkeyPatch, piece_ns: int, most_pieces: int
) -> None:
    rendered_ns, since_others = 0, [0]

    def pieces() -> Iterator[str]:
        nonlocal rendered_ns
        for number in range(1_000):
            rendered_ns += piece_ns
            since_others[-1] += 1
            yield str(number)

    async def others() -> None:
        while True:
            since_others.append(0)
            await asyncio.sleep(0)

    monkeypatch.setattr(turns, "perf_counter_ns", lambda: rendered_ns)
    ticking = asyncio.create_task(others())
    assert await in_turns(pieces()) == "".join(map(str, range(1_000)))
    ticking.cancel()
    assert max(since_others) <= most_pieces + 1


async def test_a_page_in_turns_is_the_page() -> None:
    renderer, _ = rendering()
    for name, page, view in gallery("en"):
        main = await in_turns(renderer.pieces(page, view))
        assert renderer.document(page, view, main) == renderer.page(page, view), name


async def test_a_checkout_comes_in_many_pieces() -> None:
    renderer, _ = rendering()
    page, view = next((page, view) for name, page, view in gallery("en") if name == "checkout")
    assert max(map(len, renderer.pieces(page, view))) < len(renderer.main(page, view)) / 4
