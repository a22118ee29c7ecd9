"""Who and what there is: the named cast of every country and the crowd behind it, as they are at the start. Nothing here changes."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from msgspec import Struct, structs

from cashier.sandbox.contract_shapes import Json, Person, Scene, dated
from cashier.sandbox.generated_users import Crowd, number_of
from cashier.sandbox.world_china import CHINA
from cashier.sandbox.world_indonesia import INDONESIA
from cashier.sandbox.world_japan import JAPAN
from cashier.sandbox.world_kuwait import KUWAIT

SCENES = (CHINA, INDONESIA, JAPAN, KUWAIT)

# One consultation asks five services about one user: remembering those asked last makes a person of the crowd once, not five times.
_PEOPLE_REMEMBERED = 2_000


class Cast:
    """Finds merchants, people, orders as placed, and channels. What is found is shared: read it, do not change it."""

    def __init__(self, seed: int, start: datetime, scenes: tuple[Scene, ...] = SCENES) -> None:
        scenes = tuple(_dated_scene(scene, start) for scene in scenes)
        self.crowd = Crowd(seed, start)
        self._merchants = {told["merchant_id"]: told for scene in scenes for told in scene.merchants}
        self._people = {told.member["user_id"]: told for scene in scenes for told in scene.people}
        self._orders = {told["order_id"]: told for scene in scenes for told in scene.orders}
        self._channels = {told["channel_id"]: told for scene in scenes for told in scene.channels}
        self._roads = _roads(scenes)
        self._passer_by = lru_cache(maxsize=_PEOPLE_REMEMBERED)(self.crowd.person)

    def __repr__(self) -> str:
        return f"Cast(people={len(self._people)}, orders={len(self._orders)}, channels={len(self._channels)}, crowd={self.crowd!r})"

    @property
    def named_people(self) -> tuple[Person, ...]:
        return tuple(self._people.values())

    @property
    def named_orders(self) -> tuple[Json, ...]:
        return tuple(self._orders.values())

    @property
    def named_merchants(self) -> tuple[Json, ...]:
        return tuple(self._merchants.values())

    @property
    def all_channels(self) -> tuple[Json, ...]:
        return tuple(self._channels.values())

    def merchant(self, merchant_id: str) -> Json | None:
        n = _number(merchant_id, "m")
        return self.crowd.merchant(n) if n else self._merchants.get(merchant_id)

    def person(self, user_id: str) -> Person | None:
        n = _number(user_id, "u")
        return self._passer_by(n) if n else self._people.get(user_id)

    def placed_order(self, order_id: str) -> Json | None:
        """The order as it was at the start; the acquirer knows what became of it."""
        n = _number(order_id, "o")
        return self.crowd.order(n) if n else self._orders.get(order_id)

    def channel(self, channel_id: str) -> Json | None:
        return self._channels.get(channel_id)

    def channels(self, currency: str, country: str) -> list[Json]:
        return self._roads.get((currency, country), [])


def _number(identity: str, letter: str) -> int | None:
    return number_of(identity) if identity.startswith(letter) else None


def _dated_scene(scene: Scene, start: datetime) -> Scene:
    def fill(told: tuple[Json, ...]) -> tuple[Json, ...]:
        return tuple(dated(told, start, scene.utc_offset_h))

    people = tuple(Person(**dated(_fields(person), start, scene.utc_offset_h)) for person in scene.people)
    return structs.replace(
        scene, merchants=fill(scene.merchants), people=people, orders=fill(scene.orders), channels=fill(scene.channels)
    )


def _fields(told: Struct) -> Json:
    return {name: getattr(told, name) for name in told.__struct_fields__}


def _roads(scenes: tuple[Scene, ...]) -> dict[tuple[str, str], list[Json]]:
    roads: dict[tuple[str, str], list[Json]] = {}
    for scene in scenes:
        for channel in scene.channels:
            for currency in channel["currencies"]:
                roads.setdefault((currency, scene.country), []).append(channel)
    return roads
