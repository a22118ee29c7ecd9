"""The table of sources: one record for each upstream, from which the rest of the sandbox derives.

Single calls, batches and in-process calls all pass parameters by name. No transport, no faults.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from datetime import date

from msgspec import Struct

from cashier.sandbox.records import Json
from cashier.sandbox.weather import ENGINE_FAULTS, Fault, PaymentFault
from cashier.sandbox.world import World

Read = Callable[..., Json | None]
Version = Callable[..., Hashable]


class SourceRead(Struct, frozen=True):
    """The read of one source. `path`: a template of its parameters; others are in the query.

    `parameters` determine the answer; `checked` are only validated.
    `version`: a value that changes whenever the answer may have changed; answers are cached under
    it. None: not cached. `batch`: path of the batch form. `consulted`: a consultation reads it.
    """

    path: str
    read: Read
    parameters: tuple[str, ...]
    checked: tuple[str, ...] = ()
    version: Version | None = lambda world, *values: None
    batch: str | None = None
    consulted: bool = True


class SimulatedSource(Struct, frozen=True):
    """One upstream.

    `latency_ms`: median and 99th percentile in calm weather. `identity`: the field of an answer
    that identifies its subject; None if there is none. `read`: None for a source with endpoints of
    its own. `calls`: the names that planned faults can be restricted to. `payment_faults`: its
    faults beyond those of any source.
    """

    latency_ms: tuple[float, float]
    identity: str | None
    read: SourceRead | None = None
    calls: tuple[str, ...] = ("read",)
    payment_faults: tuple[PaymentFault, ...] = ()

    @property
    def answer_faults(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in Fault if fault is not Fault.WRONG_IDENTITY or self.identity is not None)

    @property
    def possible_faults(self) -> tuple[Fault | PaymentFault, ...]:
        return (*self.answer_faults, *self.payment_faults)


def _order(world: World, order_id: str) -> Json | None:
    return world.acquirer.order(order_id)


def _order_result(world: World, order_id: str) -> Json | None:
    return world.acquirer.result(order_id)


def _merchant(world: World, merchant_id: str) -> Json | None:
    return world.population.merchant(merchant_id)


def _member(world: World, user_id: str) -> Json | None:
    user = world.population.user(user_id)
    return user.member if user else None


def _card(world: World, user_id: str) -> Json | None:
    user = world.population.user(user_id)
    if user is None or user.cards is None:
        return None
    return {"user_id": user_id, "cards": user.cards, "agreements": user.agreements}


def _balance(world: World, user_id: str) -> Json | None:
    accounts = world.holdings.accounts(user_id)
    return None if accounts is None else {"user_id": user_id, "accounts": accounts}


def _marketing(world: World, user_id: str, currency: str) -> Json | None:
    """All unused promotions in the currency, also expired or unreachable ones."""
    user, promotions = world.population.user(user_id), world.holdings.promotions(user_id)
    if user is None or promotions is None:
        return None
    held = [promotion for promotion in promotions if promotion["threshold"]["currency"] == currency]
    return {"user_id": user_id, "promotions": held, "boosts": user.boosts}


def _channel(world: World, currency: str, country: str) -> Json:
    return {"channels": world.population.channels(currency, country)}


def _quota(world: World, user_id: str, currency: str) -> Json | None:
    quotas = world.holdings.quotas(user_id)
    if quotas is None:
        return None
    return {"user_id": user_id, "quotas": [quota for quota in quotas if _is_in(currency, quota)]}


def _is_in(currency: str, quota: Json) -> bool:
    amount = quota.get("single") or (quota.get("daily") or quota["monthly"])["limit"]
    return bool(amount["currency"] == currency)


def _movements(world: World, user_id: str, *values: str) -> int:
    return world.holdings.version(user_id)


def _movements_and_date(world: World, user_id: str, *values: str) -> tuple[int, date | None]:
    return world.holdings.version(user_id), world.holdings.today(user_id)


def _channel_changes(world: World, *values: str) -> int:
    return len(world.population.past_channels)


# Look-ups by key are quick, counting and deciding take longer.
SOURCES: Mapping[str, SimulatedSource] = {
    "order": SimulatedSource(
        (3, 9),
        "order_id",
        SourceRead("/orders/{order_id}", _order, ("order_id",), version=None, batch="/batch/orders"),
    ),
    "merchant": SimulatedSource(
        (2, 6),
        "merchant_id",
        SourceRead("/merchants/{merchant_id}", _merchant, ("merchant_id",), batch="/batch/merchants"),
    ),
    "member": SimulatedSource(
        (2, 6), "user_id", SourceRead("/members/{user_id}", _member, ("user_id",), batch="/batch/members")
    ),
    "card": SimulatedSource(
        (3, 10), "user_id", SourceRead("/members/{user_id}/cards", _card, ("user_id",), batch="/batch/cards")
    ),
    "balance": SimulatedSource(
        (3, 9),
        "user_id",
        SourceRead("/members/{user_id}/balances", _balance, ("user_id",), version=_movements, batch="/batch/balances"),
    ),
    "marketing": SimulatedSource(
        (5, 18),
        "user_id",
        SourceRead(
            "/members/{user_id}/promotions",
            _marketing,
            ("user_id", "currency"),
            checked=("merchant_id", "value"),
            version=_movements,
            batch="/batch/promotions",
        ),
    ),
    "channel": SimulatedSource(
        (3, 8), None, SourceRead("/channels", _channel, ("currency", "country"), version=_channel_changes)
    ),
    "quota": SimulatedSource(
        (4, 12),
        "user_id",
        SourceRead(
            "/members/{user_id}/quotas",
            _quota,
            ("user_id", "currency"),
            version=_movements_and_date,
            batch="/batch/quotas",
        ),
    ),
    "risk": SimulatedSource(
        (8, 30),
        None,
        calls=("decide", "verify", "resend"),
        payment_faults=tuple(fault for fault in PaymentFault if fault not in ENGINE_FAULTS),
    ),
    "engine": SimulatedSource(
        (12, 40), "payment_id", calls=("submit", "look_up", "reverse"), payment_faults=tuple(PaymentFault)
    ),
    "acquirer": SimulatedSource(
        (3, 9),
        "order_id",
        SourceRead("/orders/{order_id}/result", _order_result, ("order_id",), version=None, consulted=False),
    ),
}
SOURCE_READS = {name: source.read for name, source in SOURCES.items() if source.read is not None}
