"""The read-only sources: parameters, their checks, and the lookup of the answer in the world.

Single calls, batches and in-process calls all pass parameters by name. No transport, no faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from datetime import date
from functools import lru_cache

from msgspec import Struct

from cashier.sandbox.record_builders import Json
from cashier.sandbox.upstream_answer import BadInput, UpstreamAnswer, error_answer
from cashier.sandbox.world import World

# Encoded answers take some kilobytes each, so these take some tens of megabytes.
_ANSWERS_CACHED = 4_000
_MAX_BATCH = 500
_MAX_VALUE = 2**53 - 1

_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_INTEGER = re.compile(r"[0-9]{1,16}")

Read = Callable[..., Json | None]
Version = Callable[..., Hashable]


class SourceRead(Struct, frozen=True):
    """The read of one source. `parameters` determine the answer; `checked` are only validated.

    `version`: a value that changes whenever the answer may have changed; answers are cached under
    it. None: not cached. `batch`: path of the batch form.
    """

    read: Read
    parameters: tuple[str, ...]
    checked: tuple[str, ...] = ()
    version: Version | None = lambda world, *values: None
    batch: str | None = None


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


SOURCE_READS = {
    "order": SourceRead(_order, ("order_id",), version=None, batch="/batch/orders"),
    "acquirer": SourceRead(_order_result, ("order_id",), version=None),
    "merchant": SourceRead(_merchant, ("merchant_id",), batch="/batch/merchants"),
    "member": SourceRead(_member, ("user_id",), batch="/batch/members"),
    "card": SourceRead(_card, ("user_id",), batch="/batch/cards"),
    "balance": SourceRead(_balance, ("user_id",), version=_movements, batch="/batch/balances"),
    "marketing": SourceRead(
        _marketing,
        ("user_id", "currency"),
        checked=("merchant_id", "value"),
        version=_movements,
        batch="/batch/promotions",
    ),
    "channel": SourceRead(_channel, ("currency", "country")),
    "quota": SourceRead(_quota, ("user_id", "currency"), version=_movements_and_date, batch="/batch/quotas"),
}


class SourceReader:
    """The read-only sources of one world. Wrong parameters give a 400, a missing record a 404."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cached = lru_cache(maxsize=_ANSWERS_CACHED)(self._read_at)

    def __repr__(self) -> str:
        return f"SourceReader({self._world!r}, cached={self._cached.cache_info().currsize})"

    def look_up(self, source: str, parameters: Mapping[str, object]) -> UpstreamAnswer:
        """The answer of a source to parameters given by name."""
        read = SOURCE_READS[source]
        try:
            values = [_checked(name, parameters.get(name)) for name in read.parameters]
            for name in read.checked:
                _checked(name, parameters.get(name))
        except BadInput as bad:
            return bad.answer()
        self._world.catch_up()
        if read.version is None:
            return self._read(source, *values)
        return self._cached(read.version(self._world, *values), source, *values)

    def look_up_many(self, source: str, body: object) -> UpstreamAnswer:
        """The batch form: the same answers in the order of the requests."""
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not all(isinstance(request, dict) for request in requests):
            return BadInput("requests", "a list of objects").answer()
        if len(requests) > _MAX_BATCH:
            return BadInput("requests", f"at most {_MAX_BATCH} objects").answer()
        return UpstreamAnswer(200, {"answers": [_part(self.look_up(source, request)) for request in requests]})

    def _read_at(self, version: Hashable, source: str, *values: str) -> UpstreamAnswer:
        return self._read(source, *values)

    def _read(self, source: str, *values: str) -> UpstreamAnswer:
        body = SOURCE_READS[source].read(self._world, *values)
        return error_answer(404, "NOT_FOUND", source=source) if body is None else UpstreamAnswer(200, body)


def _part(answer: UpstreamAnswer) -> Json:
    return (
        {"ok": answer.body}
        if answer.status == 200
        else {"error": {"status": answer.status, "code": answer.body["code"]}}
    )


def _checked(name: str, value: object) -> str:
    pattern, expected = _PARAMETER_RULES[name]
    # An amount is a number in a batch and digits in a query.
    text = str(value) if name == "value" and isinstance(value, int) else value
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise BadInput(name, expected)
    if name == "value" and int(text) > _MAX_VALUE:
        raise BadInput(name, expected)
    return text


_IDENTITY_RULE = (_IDENTITY, "1 to 64 of A-Za-z0-9_.:@~-")
_PARAMETER_RULES = {
    "order_id": _IDENTITY_RULE,
    "merchant_id": _IDENTITY_RULE,
    "user_id": _IDENTITY_RULE,
    "currency": (_CURRENCY, "three capital letters"),
    "country": (_COUNTRY, "two capital letters"),
    "value": (_INTEGER, "a whole number of minor units"),
}
