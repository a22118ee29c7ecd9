"""What payers hold now: what they held at the start less the ledger's movements. Stores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone

from cashier.sandbox.ledger import FundingSource, Ledger, LedgerEntry
from cashier.sandbox.records import Json, SimulatedUser, money
from cashier.sandbox.seed_data import COUNTRIES, Population
from cashier.sandbox.world_clock import Clock

_ZONES = {country.code: timezone(timedelta(hours=country.utc_offset_h)) for country in COUNTRIES}


class PayerHoldings:
    """Accounts, promotions and quotas by payer. None if that service does not know the payer."""

    def __init__(self, population: Population, ledger: Ledger, clock: Clock) -> None:
        self._population = population
        self._ledger = ledger
        self._clock = clock
        self._start = clock()

    def __repr__(self) -> str:
        return f"PayerHoldings({self._ledger!r})"

    def version(self, user_id: str) -> int:
        """A number that changes with every movement of this payer."""
        return len(self._ledger.movements_of(user_id))

    def today(self, user_id: str) -> date | None:
        """The date in the payer's time zone, in which daily limits are reset."""
        user = self._population.user(user_id)
        return _local_time(user, self._clock()).date() if user else None

    def accounts(self, user_id: str | None) -> list[Json] | None:
        user = self._population.user(user_id)
        if user is None or user.accounts is None:
            return None
        movements = self._ledger.movements_of(user_id)
        return (
            [_reduced(account, _moved(movements, f"BALANCE:{account['account_id']}")) for account in user.accounts]
            if movements
            else user.accounts
        )

    def promotions(self, user_id: str | None) -> list[Json] | None:
        """All unused promotions, also expired or unreachable ones; the caller decides."""
        user = self._population.user(user_id)
        if user is None or user.promotions is None:
            return None
        movements = self._ledger.movements_of(user_id)
        return (
            [
                promotion
                for promotion in user.promotions
                if not _moved(movements, f"PROMOTION:{promotion['promotion_id']}")
            ]
            if movements
            else user.promotions
        )

    def quotas(self, user_id: str) -> list[Json] | None:
        user = self._population.user(user_id)
        if user is None or user.quotas is None:
            return None
        now, start = _local_time(user, self._clock()), _local_time(user, self._start)
        movements = self._ledger.movements_of(user_id)
        return (
            [self._with_usage(user, quota, movements, now, start) for quota in user.quotas]
            if movements or now.date() != start.date()
            else user.quotas
        )

    def _with_usage(
        self, user: SimulatedUser, quota: Json, movements: Sequence[LedgerEntry], now: datetime, start: datetime
    ) -> Json:
        counted = [entry for entry in movements if self._counts(user, quota["scope"], entry)]
        updated = dict(quota)
        for period, pattern in (("daily", "%Y-%m-%d"), ("monthly", "%Y-%m")):
            if period in quota:
                current = now.strftime(pattern)
                before = quota[period]["used"]["value"] if start.strftime(pattern) == current else 0
                used = before + sum(
                    entry.moved for entry in counted if _local_time(user, entry.at).strftime(pattern) == current
                )
                updated[period] = quota[period] | {"used": money(quota[period]["used"]["currency"], max(0, used))}
        return updated

    def _counts(self, user: SimulatedUser, scope: Json, entry: LedgerEntry) -> bool:
        """Whether a movement matches every field of the quota's scope."""
        return all(self._traits(user, entry).get(name) == value for name, value in scope.items())

    def _traits(self, user: SimulatedUser, entry: LedgerEntry) -> Json:
        source = FundingSource(entry.source or "", entry.instrument_id)
        if source.type != "CHANNEL":
            return {"kind": source.type}
        channel = self._population.channel(source.id) or {}
        card = next((card for card in user.cards or () if card["card_id"] == source.instrument_id), {})
        bank = card.get("bank", channel.get("provider"))
        return {"kind": channel.get("kind"), "bank": bank, "channel_id": source.id, "card_id": source.instrument_id}


def _local_time(user: SimulatedUser, at: datetime) -> datetime:
    return at.astimezone(_ZONES[user.member["country"]])


def _moved(movements: Sequence[LedgerEntry], source: str) -> int:
    return sum(entry.moved for entry in movements if entry.source == source)


def _reduced(account: Json, moved: int) -> Json:
    available = account["available"]
    return account | {"available": money(available["currency"], available["value"] - moved)}
