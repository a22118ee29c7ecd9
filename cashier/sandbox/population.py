"""Who and what there is: the named cast of every country and the crowd behind it, as they are at the start. Nothing here changes."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from msgspec import Struct, structs

from cashier.sandbox.contract_shapes import Json, SimulatedUser, Country, resolve_times
from cashier.sandbox.generated_users import GeneratedUsers, parse_number
from cashier.sandbox.world_china import CHINA
from cashier.sandbox.world_indonesia import INDONESIA
from cashier.sandbox.world_japan import JAPAN
from cashier.sandbox.world_kuwait import KUWAIT

COUNTRIES = (CHINA, INDONESIA, JAPAN, KUWAIT)

# One consultation asks five services about one user: remembering those asked last makes a person of the crowd once, not five times.
_PEOPLE_REMEMBERED = 2_000


class Population:
    """Finds merchants, people, orders as placed, and channels. What is found is shared: read it, do not change it."""

    def __init__(self, seed: int, start: datetime, countries: tuple[Country, ...] = COUNTRIES) -> None:
        countries = tuple(_resolve_country(country, start) for country in countries)
        self.generated = GeneratedUsers(seed, start)
        self._merchants = {told["merchant_id"]: told for country in countries for told in country.merchants}
        self._users = {told.member["user_id"]: told for country in countries for told in country.users}
        self._orders = {told["order_id"]: told for country in countries for told in country.orders}
        self._channels = {told["channel_id"]: told for country in countries for told in country.channels}
        self._channels_by_market = _channels_by_market(countries)
        self._generated_user = lru_cache(maxsize=_PEOPLE_REMEMBERED)(self.generated.user)

    def __repr__(self) -> str:
        return f"Cast(users={len(self._users)}, orders={len(self._orders)}, channels={len(self._channels)}, crowd={self.generated!r})"

    @property
    def named_users(self) -> tuple[SimulatedUser, ...]:
        return tuple(self._users.values())

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
        return self.generated.merchant(n) if n else self._merchants.get(merchant_id)

    def user(self, user_id: str) -> SimulatedUser | None:
        n = _number(user_id, "u")
        return self._generated_user(n) if n else self._users.get(user_id)

    def placed_order(self, order_id: str) -> Json | None:
        """The order as it was at the start; the acquirer knows what became of it."""
        n = _number(order_id, "o")
        return self.generated.order(n) if n else self._orders.get(order_id)

    def channel(self, channel_id: str) -> Json | None:
        return self._channels.get(channel_id)

    def channels(self, currency: str, country: str) -> list[Json]:
        return self._channels_by_market.get((currency, country), [])


def _number(identity: str, letter: str) -> int | None:
    return parse_number(identity) if identity.startswith(letter) else None


def _resolve_country(country: Country, start: datetime) -> Country:
    def fill(told: tuple[Json, ...]) -> tuple[Json, ...]:
        return tuple(resolve_times(told, start, country.utc_offset_h))

    users = tuple(
        SimulatedUser(**resolve_times(_fields(person), start, country.utc_offset_h)) for person in country.users
    )
    return structs.replace(
        country,
        merchants=fill(country.merchants),
        users=users,
        orders=fill(country.orders),
        channels=fill(country.channels),
    )


def _fields(told: Struct) -> Json:
    return {name: getattr(told, name) for name in told.__struct_fields__}


def _channels_by_market(countries: tuple[Country, ...]) -> dict[tuple[str, str], list[Json]]:
    by_market: dict[tuple[str, str], list[Json]] = {}
    for country in countries:
        for channel in country.channels:
            for currency in channel["currencies"]:
                by_market.setdefault((currency, country.country), []).append(channel)
    return by_market
