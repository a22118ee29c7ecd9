"""All merchants, users, orders and channels. Channels change, and shops place further orders."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

from msgspec import structs

from cashier.sandbox.country import Country, load_country
from cashier.sandbox.generated_population import GeneratedUsers, parse_number
from cashier.sandbox.records import Json, SimulatedUser, resolve_times

COUNTRIES = tuple(map(load_country, ("china", "indonesia", "japan", "kuwait")))

# One consultation asks five services about one user: the cache generates that user once.
_USERS_CACHED = 2_000


class Population:
    """Named records of all countries and generated ones. They are shared: do not change them."""

    def __init__(self, seed: int, start: datetime, countries: tuple[Country, ...] = COUNTRIES) -> None:
        countries = tuple(_resolve_country(country, start) for country in countries)
        self.generated = GeneratedUsers(seed, start)
        self._merchants = {record["merchant_id"]: record for country in countries for record in country.merchants}
        self._users = {user.member["user_id"]: user for country in countries for user in country.users}
        self._orders = {record["order_id"]: record for country in countries for record in country.orders}
        self._channels = {record["channel_id"]: record for country in countries for record in country.channels}
        self._channels_by_market = _channels_by_market(countries)
        self.past_channels: list[Json] = []
        self._generated_user = lru_cache(maxsize=_USERS_CACHED)(self.generated.user)

    def __repr__(self) -> str:
        return (
            f"Population(users={len(self._users)}, orders={len(self._orders)}, channels={len(self._channels)}, "
            f"{self.generated!r})"
        )

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

    def user(self, user_id: str | None) -> SimulatedUser | None:
        """None also for a walk-in, who has no id."""
        if user_id is None:
            return None
        n = _number(user_id, "u")
        return self._generated_user(n) if n else self._users.get(user_id)

    def placed_order(self, order_id: str) -> Json | None:
        """The order as it was placed; the acquirer has its current state."""
        n = _number(order_id, "o")
        return self.generated.order(n) if n else self._orders.get(order_id)

    def place_order(self, order: Json) -> None:
        self._orders[order["order_id"]] = order

    def channel(self, channel_id: str) -> Json | None:
        return self._channels.get(channel_id)

    def change_channel(self, channel_id: str, **fields: object) -> Json | None:
        """Give a channel other terms or another status. None if there is no such channel."""
        present = self._channels.get(channel_id)
        if present is None:
            return None
        self.past_channels.append(present)
        changed = self._channels[channel_id] = present | fields
        for channels in self._channels_by_market.values():
            channels[:] = [changed if channel is present else channel for channel in channels]
        return changed

    def channels(self, currency: str, country: str) -> list[Json]:
        return self._channels_by_market.get((currency, country), [])


def _number(identity: str, letter: str) -> int | None:
    return parse_number(identity) if identity.startswith(letter) else None


def _resolve_country(country: Country, start: datetime) -> Country:
    def resolve(value: Any) -> Any:
        return resolve_times(value, start, country.utc_offset_h)

    return structs.replace(
        country,
        merchants=resolve(country.merchants),
        users=[SimulatedUser(**resolve(structs.asdict(user))) for user in country.users],
        orders=resolve(country.orders),
        channels=resolve(country.channels),
    )


def _channels_by_market(countries: tuple[Country, ...]) -> dict[tuple[str, str], list[Json]]:
    by_market: dict[tuple[str, str], list[Json]] = {}
    for country in countries:
        for channel in country.channels:
            for currency in channel["currencies"]:
                by_market.setdefault((currency, country.code), []).append(channel)
    return by_market
