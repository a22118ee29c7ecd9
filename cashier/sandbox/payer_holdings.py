"""What payers hold now: what they held at the start, less what the ledger says has left them. Nothing is stored here beside the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone

from cashier.sandbox.contract_shapes import Json, SimulatedUser, money
from cashier.sandbox.ledger import LedgerEntry, Ledger, FundingSource
from cashier.sandbox.population import COUNTRIES, Population
from cashier.sandbox.world_clock import Clock

_ZONES = {country.country: timezone(timedelta(hours=country.utc_offset_h)) for country in COUNTRIES}


class PayerHoldings:
    """Accounts, promotions and quotas by payer. None where that service has never heard of the payer."""

    def __init__(self, population: Population, ledger: Ledger, clock: Clock) -> None:
        self._population = population
        self._ledger = ledger
        self._clock = clock
        self._start = clock()

    def __repr__(self) -> str:
        return f"Holdings({self._ledger!r})"

    def version(self, user_id: str) -> int:
        """Another number whenever something has moved for this payer."""
        return len(self._ledger.moves_of(user_id))

    def today(self, user_id: str) -> date | None:
        """The date where the payer lives: daily limits begin anew with it."""
        person = self._population.user(user_id)
        return _at_home(person, self._clock()).date() if person else None

    def accounts(self, user_id: str) -> list[Json] | None:
        person = self._population.user(user_id)
        if person is None or person.accounts is None:
            return None
        moves = self._ledger.moves_of(user_id)
        return (
            [_lowered(account, _moved(moves, f"BALANCE:{account['account_id']}")) for account in person.accounts]
            if moves
            else person.accounts
        )

    def promotions(self, user_id: str) -> list[Json] | None:
        """Those that are not used up; also what is out of reach or over: whoever asks judges that."""
        person = self._population.user(user_id)
        if person is None or person.promotions is None:
            return None
        moves = self._ledger.moves_of(user_id)
        return (
            [one for one in person.promotions if not _moved(moves, f"PROMOTION:{one['promotion_id']}")]
            if moves
            else person.promotions
        )

    def quotas(self, user_id: str) -> list[Json] | None:
        person = self._population.user(user_id)
        if person is None or person.quotas is None:
            return None
        now, start = _at_home(person, self._clock()), _at_home(person, self._start)
        moves = self._ledger.moves_of(user_id)
        return (
            [self._grown(person, quota, moves, now, start) for quota in person.quotas]
            if moves or now.date() != start.date()
            else person.quotas
        )

    def _grown(
        self, person: SimulatedUser, quota: Json, moves: Sequence[LedgerEntry], now: datetime, start: datetime
    ) -> Json:
        counted = [entry for entry in moves if self._counts(person, quota["scope"], entry)]
        grown = dict(quota)
        for period, pattern in (("daily", "%Y-%m-%d"), ("monthly", "%Y-%m")):
            if period in quota:
                this = now.strftime(pattern)
                before = quota[period]["used"]["value"] if start.strftime(pattern) == this else 0
                used = before + sum(
                    entry.moved for entry in counted if _at_home(person, entry.at).strftime(pattern) == this
                )
                grown[period] = quota[period] | {"used": money(quota[period]["used"]["currency"], max(0, used))}
        return grown

    def _counts(self, person: SimulatedUser, scope: Json, entry: LedgerEntry) -> bool:
        """Whether a move is of the quota's scope: each thing that the scope names has to be the move's."""
        return all(self._traits(person, entry).get(name) == value for name, value in scope.items())

    def _traits(self, person: SimulatedUser, entry: LedgerEntry) -> Json:
        source = FundingSource(entry.source or "", entry.instrument_id)
        if source.type != "CHANNEL":
            return {"kind": source.type}
        channel = self._population.channel(source.id) or {}
        card = next((one for one in person.cards or () if one["card_id"] == source.instrument_id), {})
        bank = card.get("bank", channel.get("provider"))
        return {"kind": channel.get("kind"), "bank": bank, "channel_id": source.id, "card_id": source.instrument_id}


def _at_home(person: SimulatedUser, at: datetime) -> datetime:
    return at.astimezone(_ZONES[person.member["country"]])


def _moved(moves: Sequence[LedgerEntry], source: str) -> int:
    return sum(entry.moved for entry in moves if entry.source == source)


def _lowered(account: Json, moved: int) -> Json:
    available = account["available"]
    return account | {"available": money(available["currency"], available["value"] - moved)}
