"""The garbage collector of a serving process: short pauses, however much is cached."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from cashier.web.server import (
    FROZEN_FROM,
    FROZEN_UP_TO,
    ServerConfig,
    ServerSettings,
    StoppableServer,
    freeze_survivors,
)
from tests.web.test_opening import not_built


@pytest.fixture(autouse=True)
def only_new_objects() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def new_objects(count: int) -> list[list[object]]:
    return [[] for _ in range(count)]


async def test_a_server_freezes_new_objects_that_survive_and_collects_the_others() -> None:
    frozen = gc.get_freeze_count()
    kept = new_objects(FROZEN_FROM)
    garbage: list[object] = []
    garbage.append(garbage)
    del garbage
    collected = []
    gc.callbacks.append(lambda _, info: collected.append((info["generation"], info["collected"])))
    try:
        await StoppableServer(ServerConfig(ServerSettings(), not_built)).on_tick(1)
    finally:
        gc.callbacks.pop()
    assert collected == [(0, 0), (0, 1)]
    assert gc.get_freeze_count() - frozen >= len(kept)
    assert gc.get_count()[0] < FROZEN_FROM / 10


@pytest.mark.parametrize("count", [FROZEN_FROM // 2, FROZEN_UP_TO])
def test_few_objects_or_those_of_much_work_in_progress_stay(count: int) -> None:
    frozen = gc.get_freeze_count()
    kept = new_objects(count)
    freeze_survivors()
    assert gc.get_freeze_count() == frozen
    assert len(kept) == count
