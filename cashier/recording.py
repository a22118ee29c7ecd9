"""Recordings of consultations: what each source answered, without whose it was.

A recording is a JSON file in the contract's shape, for `cashier sandbox --replay`. It keeps what a
consultation decides by: amounts, states, kinds, banks, channels, times. Every other text, ids and
names among them, becomes a pseudonym, the same one wherever that text occurs in the recording. The
key of the pseudonyms is never stored. Fields that the contract does not have are left out.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson
from msgspec import Struct

from cashier.consultation.source_table import SOURCE_NAMES, SourceSpec
from cashier.domain.money import Money
from cashier.logs.code_word import is_code_word
from cashier.probe import ProbeResult, probe
from cashier.settings.schema import Configuration

# Texts that decide what is offered, and belong to no person. A new field is redacted until it is
# named here.
_KEPT_CODES = frozenset((
    "status", "type", "kind", "kinds", "currency", "currencies", "country", "product", "products", "terminals",
    "bank", "banks", "brand", "brands", "card_types", "provider", "channel_id", "term_id", "mcc", "expiry",
))  # fmt: skip
_KEPT_TEXTS = frozenset(("bank_name", "provider_name", "group", "label", "category", "expires_at", "until"))
_KEPT_TABLES = frozenset(("bank_names", "provider_names"))
_PSEUDONYM_CHARACTERS = 12


class RecordedAnswer(Struct, frozen=True, kw_only=True):
    """`parameters`: of the request, by name. `body`: None with the status 404."""

    source: str
    parameters: dict[str, str]
    status: int
    body: Any = None


class Recording(Struct, frozen=True, kw_only=True):
    """`request`: the consultation that the replayed answers serve. All ids are pseudonyms."""

    recorded_at: datetime
    request: dict[str, Any]
    answers: tuple[RecordedAnswer, ...]


class NothingToRecord(Exception):
    """There is no order, so no consultation to serve; the text says why."""


class _SourceAnswer(NamedTuple):
    spec: SourceSpec
    inputs: Mapping[str, Any]
    value: Any
    """As JSON types; None: there is none."""


class _Pseudonyms:
    """`providers`: banks, wallets and shops by which instruments are named, and which are kept."""

    def __init__(self, providers: frozenset[str]) -> None:
        self._key = secrets.token_bytes(32)
        self._providers = providers

    def of(self, text: str) -> str:
        return f"r_{self._digest(text).hex()[:_PSEUDONYM_CHARACTERS]}"

    def redacted(self, value: Any, name: str = "") -> Any:
        """A JSON value in the contract's shape, with pseudonyms."""
        match value:
            case dict() if name in _KEPT_TABLES:
                return value
            case dict():
                return {key: self.redacted(part, key) for key, part in value.items() if part is not None}
            case list() | tuple():
                return [self.redacted(part, name) for part in value]
            case str() if name == "last4":
                return f"{int.from_bytes(self._digest(value)[:4]) % 10_000:04}"
            case str() if name in _KEPT_TEXTS or (name in _KEPT_CODES and is_code_word(value)):
                return value
            case str() if name == "instrument_id" and value in self._providers:
                return value
            case str():
                return self.of(value)
        return value

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), "sha256")


async def record(config: Configuration, known: Mapping[str, Any]) -> tuple[Recording, list[ProbeResult]]:
    """Ask each source once. Returns the recording, and the exchanges that are not in it.

    Raises `ConfigurationError` and `NothingToRecord`.
    """
    given: dict[str, _SourceAnswer] = {}

    def on_answer(spec: SourceSpec, inputs: Mapping[str, Any], not_found: bool, body: bytes) -> None:
        value = None if not_found else msgspec.to_builtins(spec.source.decode(body))
        given[spec.source.name] = _SourceAnswer(spec, dict(inputs), value)

    exchanges, _ = await probe(config, known, on_answer=on_answer)
    order = given["order"].value if "order" in given else None
    if order is None:
        fault = next((exchange.fault for exchange in exchanges if exchange.source == "order"), None)
        raise NothingToRecord(f"no order to record: {fault or 'there is none with this id'}")
    pseudonyms = _Pseudonyms(_providers(given))
    recording = Recording(
        recorded_at=datetime.now(UTC),
        request=_request(order, known, pseudonyms),
        answers=tuple(_redacted(answer, pseudonyms) for answer in given.values()),
    )
    consulted = [exchange for exchange in exchanges if exchange.source in SOURCE_NAMES]
    return recording, [exchange for exchange in consulted if exchange.source not in given]


def write(recording: Recording, folder: Path) -> Path:
    """Write a recording into `folder`, under the pseudonym of its order. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{recording.request['order_id']}.json"
    file.write_bytes(orjson.dumps(msgspec.to_builtins(recording), option=orjson.OPT_INDENT_2))
    return file


def _providers(given: Mapping[str, _SourceAnswer]) -> frozenset[str]:
    rows = (given["channel"].value or {}).get("channels", ()) if "channel" in given else ()
    return frozenset(row["provider"] for row in rows)


def _redacted(answer: _SourceAnswer, pseudonyms: _Pseudonyms) -> RecordedAnswer:
    return RecordedAnswer(
        source=answer.spec.source.name,
        parameters=_parameters(answer.spec, answer.inputs, pseudonyms),
        status=404 if answer.value is None else 200,
        body=pseudonyms.redacted(answer.value),
    )


def _parameters(spec: SourceSpec, inputs: Mapping[str, Any], pseudonyms: _Pseudonyms) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name in spec.needs:
        value = inputs[name]
        if isinstance(value, Money):
            parameters |= {"currency": value.currency, "value": str(value.value)}
        else:
            parameters[name] = value if name in _KEPT_CODES else pseudonyms.of(value)
    return parameters


def _request(order: dict[str, Any], known: Mapping[str, Any], pseudonyms: _Pseudonyms) -> dict[str, Any]:
    """The consultation of this order, as `cashier consult` takes it."""
    given = {"order_id": order["order_id"], "merchant_id": known.get("merchant_id", order["merchant_id"])}
    user_id = known.get("user_id", order["user_id"])
    given |= {} if user_id is None else {"user_id": user_id}
    plain = {name: order[name] for name in ("amount", "country", "product")}
    return {**{name: pseudonyms.of(value) for name, value in given.items()}, **plain}
