"""The readings: what each source is asked, how its parameters are checked, and where its answer is found.

One way for all: paths and queries, batches and in-process calls come here with parameters by name. No transport, no weather.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from datetime import date
from functools import lru_cache

from msgspec import Struct

from cashier.sandbox.contract_shapes import Json
from cashier.sandbox.upstream_answer import UpstreamAnswer, BadInput, error_answer
from cashier.sandbox.world import World

# Encoded answers are some kilobytes each: this many are some tens of megabytes.
_ANSWERS_REMEMBERED = 4_000
_MAX_BATCH = 500
_MAX_VALUE = 2**53 - 1

_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,16}")

Read = Callable[..., Json | None]
Version = Callable[..., Hashable]


class SourceRead(Struct, frozen=True):
    """One source's question. `parameters` decide the answer; `checked` have to be right too, but change nothing here.

    `version`: another value whenever the answer may have become another, from the same parameters; so long it is made once. None: it is
    made each time. `batch` is the path of its batch form.
    """

    read: Read
    parameters: tuple[str, ...]
    checked: tuple[str, ...] = ()
    version: Version | None = lambda world, *values: None
    batch: str | None = None


def _order(world: World, order_id: str) -> Json | None:
    return world.acquirer.order(order_id)


def _result(world: World, order_id: str) -> Json | None:
    return world.acquirer.result(order_id)


def _merchant(world: World, merchant_id: str) -> Json | None:
    return world.population.merchant(merchant_id)


def _member(world: World, user_id: str) -> Json | None:
    person = world.population.user(user_id)
    return person.member if person else None


def _card(world: World, user_id: str) -> Json | None:
    person = world.population.user(user_id)
    if person is None or person.cards is None:
        return None
    return {"user_id": user_id, "cards": person.cards, "agreements": person.agreements}


def _balance(world: World, user_id: str) -> Json | None:
    accounts = world.holdings.accounts(user_id)
    return None if accounts is None else {"user_id": user_id, "accounts": accounts}


def _marketing(world: World, user_id: str, currency: str) -> Json | None:
    """Everything that the payer holds in the currency, also what is out of reach or over: whoever asks judges that."""
    person, promotions = world.population.user(user_id), world.holdings.promotions(user_id)
    if person is None or promotions is None:
        return None
    held = [one for one in promotions if one["threshold"]["currency"] == currency]
    return {"user_id": user_id, "promotions": held, "boosts": person.boosts}


def _channel(world: World, currency: str, country: str) -> Json:
    return {"channels": world.population.channels(currency, country)}


def _quota(world: World, user_id: str, currency: str) -> Json | None:
    quotas = world.holdings.quotas(user_id)
    return None if quotas is None else {"user_id": user_id, "quotas": [one for one in quotas if _in(currency, one)]}


def _in(currency: str, quota: Json) -> bool:
    amount = quota.get("single") or (quota.get("daily") or quota["monthly"])["limit"]
    return bool(amount["currency"] == currency)


def _until_money_moves(world: World, user_id: str, *values: str) -> int:
    return world.holdings.version(user_id)


def _until_money_moves_or_midnight(world: World, user_id: str, *values: str) -> tuple[int, date | None]:
    return world.holdings.version(user_id), world.holdings.today(user_id)


SOURCE_READS = {
    "order": SourceRead(_order, ("order_id",), version=None, batch="/batch/orders"),
    "acquirer": SourceRead(_result, ("order_id",), version=None),
    "merchant": SourceRead(_merchant, ("merchant_id",), batch="/batch/merchants"),
    "member": SourceRead(_member, ("user_id",), batch="/batch/members"),
    "card": SourceRead(_card, ("user_id",), batch="/batch/cards"),
    "balance": SourceRead(_balance, ("user_id",), version=_until_money_moves, batch="/batch/balances"),
    "marketing": SourceRead(
        _marketing,
        ("user_id", "currency"),
        checked=("merchant_id", "value"),
        version=_until_money_moves,
        batch="/batch/promotions",
    ),
    "channel": SourceRead(_channel, ("currency", "country")),
    "quota": SourceRead(_quota, ("user_id", "currency"), version=_until_money_moves_or_midnight, batch="/batch/quotas"),
}


class SourceReader:
    """The readings of one world. Never raises for what is asked: bad parameters are a 400, nothing there is a 404."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._remembered = lru_cache(maxsize=_ANSWERS_REMEMBERED)(self._read_at)

    def __repr__(self) -> str:
        return f"Lookups({self._world!r}, remembered={self._remembered.cache_info().currsize})"

    def look_up(self, source: str, given: Mapping[str, object]) -> UpstreamAnswer:
        """The answer of a source to parameters by name."""
        reading = SOURCE_READS[source]
        try:
            values = [_checked(name, given.get(name)) for name in reading.parameters]
            for name in reading.checked:
                _checked(name, given.get(name))
        except BadInput as bad:
            return bad.answer()
        self._world.catch_up()
        if reading.version is None:
            return self._read(source, *values)
        return self._remembered(reading.version(self._world, *values), source, *values)

    def look_up_many(self, source: str, body: object) -> UpstreamAnswer:
        """The batch form: the same answers, in the order of the requests."""
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not all(isinstance(one, dict) for one in requests):
            return BadInput("requests", "a list of objects").answer()
        if len(requests) > _MAX_BATCH:
            return BadInput("requests", f"at most {_MAX_BATCH} objects").answer()
        return UpstreamAnswer(200, {"answers": [_part(self.look_up(source, one)) for one in requests]})

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
    pattern, expected = _RULES[name]
    # An amount is a number in a batch and digits in a query.
    text = str(value) if name == "value" and isinstance(value, int) else value
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise BadInput(name, expected)
    if name == "value" and int(text) > _MAX_VALUE:
        raise BadInput(name, expected)
    return text


_AN_IDENTITY = (_IDENTITY, "1 to 64 of A-Za-z0-9_.:@~-")
_RULES = {
    "order_id": _AN_IDENTITY,
    "merchant_id": _AN_IDENTITY,
    "user_id": _AN_IDENTITY,
    "currency": (_CURRENCY, "three capital letters"),
    "country": (_COUNTRY, "two capital letters"),
    "value": (_WHOLE_NUMBER, "a whole number of minor units"),
}
