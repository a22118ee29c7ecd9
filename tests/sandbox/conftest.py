"""Fixtures of the sandbox tests: a world at a fixed time, a server in still weather, a client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from cashier.sandbox.server import serve
from cashier.sandbox.weather import Weather
from cashier.sandbox.weather_presets import weather_named
from cashier.sandbox.world import World

from .hand_clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def world(clock: HandClock) -> World:
    return World(seed=7, clock=clock)


@pytest.fixture
def weather() -> Weather:
    return weather_named("still", seed=7)


@pytest.fixture
async def port(world: World, weather: Weather) -> AsyncIterator[int]:
    async with serve(port=0, world=world, weather=weather) as bound:
        yield bound


@pytest.fixture
async def client(port: int) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as session:
        yield session
