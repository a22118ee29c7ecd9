"""Replay of a consultation: its facts in a record, without personal data, and back.

Ids are pseudonyms, names, titles and digits of cards are gone; what rules compare stays: amounts,
dates, statuses, and equality and order of ids. So a replay decides as the consultation did.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from cashier.consultation.end import ConsultationEnd
from cashier.consultation.source_evidence import source_evidence
from cashier.domain.catalog import Catalog
from cashier.domain.explanation.evidence import Evidence, Judgement
from cashier.domain.explanation.explain import explain
from cashier.domain.explanation.schema import Explanation, MethodExplanation, SourceEvidence
from cashier.domain.facts import (
    Balances,
    Cards,
    Channel,
    Channels,
    LastUsed,
    Marketing,
    Member,
    Merchant,
    Quota,
    Quotas,
)
from cashier.domain.order import ConsultRequest, Order
from cashier.domain.pay_method import Kind, PayMethod
from cashier.domain.ranking import Weights
from cashier.domain.split_payment import ID_SUFFIX
from cashier.logs.code_word import is_code_word
from cashier.source_errors import Missing, MissingCause
from cashier.telemetry.pseudonyms import Pseudonyms

VERSION = 1
# A file may be hostile; real facts are some twenty kilobytes.
_MOST_BYTES = 2 << 20
# What facts of the right types raise that no consultation can have: a date at the end of the
# calendar, a time without a zone, a source that is neither among the answers nor missing.
_CONTRADICTIONS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
# The kinds whose instruments are the payer's; elsewhere the instrument is a provider.
_OWN_INSTRUMENTS = frozenset({Kind.QUICK_PAY.value, Kind.AGREEMENT.value, Kind.BALANCE.value})
_CARD_DIGITS = "0000"


class RecordedAnswers(Struct, frozen=True, omit_defaults=True):
    """The answers by source. Absent: the source is in `missing`, or not configured."""

    order: Order | UnsetType | None = UNSET
    merchant: Merchant | UnsetType | None = UNSET
    member: Member | UnsetType | None = UNSET
    card: Cards | UnsetType = UNSET
    balance: Balances | UnsetType = UNSET
    channel: tuple[Channel, ...] | UnsetType = UNSET
    quota: tuple[Quota, ...] | UnsetType = UNSET
    marketing: Marketing | UnsetType = UNSET
    missing: dict[str, MissingCause] = {}


class _Versioned(Struct):
    version: int


class AnsweredMethod(Struct, frozen=True):
    """What was answered about one method. `payable`: in minor units."""

    method_id: str
    availability: str
    reason: str | None
    payable: int | None
    rank: int


class RecordedFacts(Struct, frozen=True, omit_defaults=True):
    """`configuration`: `digest_of` the one that decided. `methods`: what was answered."""

    version: int
    request: ConsultRequest
    now: datetime
    answers: RecordedAnswers
    sources: tuple[SourceEvidence, ...]
    configuration: str
    methods: tuple[AnsweredMethod, ...]


class CannotReplay(ValueError):
    """The facts are absent, of another version, not whole or contradictory."""


class Replay(Struct, frozen=True):
    """`differences`: one sentence for each method that was answered otherwise.

    `same_configuration`: terms and weights are those that decided then.
    """

    explanation: Explanation
    same_configuration: bool
    differences: tuple[str, ...]


def digest_of(catalog: Catalog, weights: Weights) -> str:
    """Of everything in the configuration that decides about methods: terms and weights."""
    decisive = msgspec.json.encode((catalog.methods, weights), order="deterministic")
    return sha256(decisive).hexdigest()[:16]


def facts_of(end: ConsultationEnd, *, digest: str, pseudonyms: Pseudonyms) -> bytes | None:
    """The packed facts of a consultation. None if it did not end by itself: some are missing."""
    gathered = end.gathered
    if gathered is None:
        return None
    evidence = Evidence(end.request, gathered.answers, end.now, source_evidence(gathered))
    methods = () if end.consultation is None else end.consultation.methods
    return packed(recorded(evidence, methods, digest, pseudonyms))


def recorded(evidence: Evidence, methods: Iterable[PayMethod], digest: str, pseudonyms: Pseudonyms) -> RecordedFacts:
    """The facts of a record."""
    names = _Names(evidence, pseudonyms)
    answers: dict[str, Any] = {}
    missing: dict[str, MissingCause] = {}
    for source, answer in evidence.answers.items():
        if isinstance(answer, Missing):
            missing[source] = answer.cause
        else:
            answers[source] = names.cleaned(answer)
    return RecordedFacts(
        version=VERSION,
        request=names.request(evidence.request),
        now=evidence.now,
        answers=RecordedAnswers(**answers, missing=missing),
        sources=tuple(structs.replace(source, failure=None) for source in evidence.sources),
        configuration=digest,
        methods=tuple(names.method(method) for method in methods),
    )


def packed(facts: RecordedFacts) -> bytes:
    """Compressed to a seventh, because a process keeps hundreds."""
    return zlib.compress(msgspec.json.encode(facts))


def unpacked(facts: bytes | None) -> RecordedFacts:
    """`facts`: of a record. Raises `CannotReplay`."""
    if facts is None:
        raise CannotReplay("the record has no facts: the consultation ended before all answers were in")
    try:
        body = zlib.decompressobj().decompress(facts, _MOST_BYTES)
        version = msgspec.json.decode(body, type=_Versioned).version
        if version != VERSION:
            raise CannotReplay(f"the record is of version {version}; this cashier replays version {VERSION}")
        return msgspec.json.decode(body, type=RecordedFacts)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CannotReplay(f"the facts of the record cannot be read: {error}") from None


def replayed(facts: RecordedFacts, catalog: Catalog, weights: Weights) -> Replay:
    """Decide once more. Routes are left out: what the worker had learned is not in the record.

    Raises `CannotReplay`.
    """
    try:
        evidence = Evidence(facts.request, _answers(facts.answers), facts.now, facts.sources)
        explanation = explain(evidence, Judgement(catalog, weights, None))
    except _CONTRADICTIONS as error:
        raise CannotReplay(f"the facts of the record contradict each other: {type(error).__name__}") from error
    answered = {method.method_id: method for method in facts.methods}
    found = {why.method_id: _as_answered(why) for kind in explanation.kinds for why in kind.methods}
    return Replay(explanation, digest_of(catalog, weights) == facts.configuration, tuple(_differences(answered, found)))


def _answers(recorded: RecordedAnswers) -> dict[str, Any]:
    answers: dict[str, Any] = {source: Missing(source, cause) for source, cause in recorded.missing.items()}
    for source in recorded.__struct_fields__:
        answer = getattr(recorded, source)
        if source == "missing" or answer is UNSET:
            continue
        if source == "channel":
            answers[source] = Channels.prepared(answer)
        elif source == "quota":
            answers[source] = Quotas.prepared(answer)
        else:
            answers[source] = answer
    return answers


def _as_answered(why: MethodExplanation) -> AnsweredMethod:
    payable = None if why.payable is None else why.payable.value
    return AnsweredMethod(why.method_id, why.availability, why.code, payable, why.rank)


def _differences(answered: Mapping[str, AnsweredMethod], found: Mapping[str, AnsweredMethod]) -> Iterator[str]:
    for method_id in sorted(answered.keys() | found.keys()):
        before, after = answered.get(method_id), found.get(method_id)
        if before != after:
            yield f"{method_id} was {_text(before)} and is now {_text(after)}"


def _text(method: AnsweredMethod | None) -> str:
    if method is None:
        return "not listed"
    reason = f" ({method.reason})" if method.reason else ""
    return f"{method.availability}{reason}, payable {method.payable}, rank {method.rank}"


class _Names:
    """The pseudonyms of one consultation."""

    def __init__(self, evidence: Evidence, pseudonyms: Pseudonyms) -> None:
        answers, self._pseudonyms = evidence.answers, pseudonyms
        cards, balances, channels = (answers.get(name) for name in ("card", "balance", "channel"))
        own: list[str] = []
        if isinstance(cards, Cards):
            own += [card.card_id for card in cards.cards]
            own += [agreement.agreement_id for agreement in cards.agreements]
        if isinstance(balances, Balances):
            own += [account.account_id for account in balances.accounts]
        self._own = pseudonyms.in_order("i", own)
        listed = channels.by_id.values() if isinstance(channels, Channels) else ()
        self._providers = frozenset(channel.provider for channel in listed)
        # The channel list is the same for all payers, so it holds no personal data.
        self._public = self._providers.union(*(_codes_of(channel) for channel in listed))
        self._user_id = evidence.request.user_id

    def request(self, request: ConsultRequest) -> ConsultRequest:
        chosen = request.chosen_promotions
        return structs.replace(
            request,
            user_id=self._user(request.user_id),
            merchant_id=self._merchant(request.merchant_id),
            chosen_promotions=None if chosen is None else tuple(map(self._promotion, chosen)),
        )

    def method(self, method: PayMethod) -> AnsweredMethod:
        kind, colon, instrument_id = method.method_id.partition(":")
        own_id = instrument_id.removesuffix(ID_SUFFIX)
        if colon and kind in _OWN_INSTRUMENTS:
            instrument_id = self._own[own_id] + instrument_id[len(own_id) :]
        return AnsweredMethod(
            f"{kind}{colon}{instrument_id}",
            method.availability,
            None if method.reason is None else method.reason.code,
            None if method.amount is None else method.amount.payable.value,
            method.rank,
        )

    def cleaned(self, answer: Any) -> Any:
        """The answer of a source without personal data."""
        match answer:
            case Order():
                ids = {"merchant_id": self._merchant(answer.merchant_id), "user_id": self._user(answer.user_id)}
                return structs.replace(answer, title="", category=None, **ids)
            case Merchant():
                return structs.replace(answer, merchant_id=self._merchant(answer.merchant_id), name="")
            case Member():
                return structs.replace(
                    answer,
                    user_id=self._user(answer.user_id),
                    usage=tuple(structs.replace(each, kind=self._code(each.kind)) for each in answer.usage),
                    last_used=self._last_used(answer.last_used),
                )
            case Cards():
                return self._cards(answer)
            case Balances():
                accounts = tuple(
                    structs.replace(
                        account, account_id=self._own[account.account_id], status=self._code(account.status)
                    )
                    for account in answer.accounts
                )
                return Balances(self._user(answer.user_id) or "", accounts)
            case Channels():
                return tuple(
                    structs.replace(channel, status=self._code(channel.status)) for channel in answer.by_id.values()
                )
            case Quotas():
                return tuple(map(self._quota, _all_quotas(answer)))
            case Marketing():
                promotions = tuple(
                    structs.replace(
                        each,
                        promotion_id=self._promotion(each.promotion_id),
                        group=self._promotion(each.group),
                        title="",
                        type=self._code(each.type),
                        kinds=frozenset(map(self._code, each.kinds)),
                        banks=None if each.banks is None else frozenset(map(self._code, each.banks)),
                    )
                    for each in answer.promotions
                )
                boosts = tuple(structs.replace(each, kind=self._code(each.kind), label="") for each in answer.boosts)
                return Marketing(self._user(answer.user_id) or "", promotions, boosts)
        return answer

    def _cards(self, held: Cards) -> Cards:
        cards = tuple(
            structs.replace(
                card,
                card_id=self._own[card.card_id],
                bank=self._code(card.bank),
                bank_name=self._code(card.bank),
                bank_names=None,
                brand=self._code(card.brand),
                last4=_CARD_DIGITS,
                status=self._code(card.status),
            )
            for card in held.cards
        )
        agreements = tuple(
            structs.replace(
                agreement,
                agreement_id=self._own[agreement.agreement_id],
                merchant_id=self._merchant(agreement.merchant_id),
                channel_id=self._code(agreement.channel_id),
                status=self._code(agreement.status),
            )
            for agreement in held.agreements
        )
        return Cards(self._user(held.user_id) or "", cards, agreements)

    def _quota(self, quota: Quota) -> Quota:
        scope = quota.scope
        cleaned = structs.replace(
            scope,
            kind=self._code(scope.kind),
            bank=scope.bank and self._code(scope.bank),
            channel_id=scope.channel_id and self._code(scope.channel_id),
            card_id=None if scope.card_id is None else self._instrument(scope.card_id),
        )
        return structs.replace(quota, scope=cleaned)

    def _last_used(self, last: LastUsed | None) -> LastUsed | None:
        if last is None:
            return None
        kind, instrument_id = self._code(last.kind), last.instrument_id
        if instrument_id is None or (last.kind not in _OWN_INSTRUMENTS and instrument_id in self._providers):
            return LastUsed(kind, instrument_id)
        return LastUsed(kind, self._instrument(instrument_id))

    def _instrument(self, name: str) -> str:
        """One that the payer may not hold any more."""
        return self._own.get(name) or self._pseudonyms.of("i", name)

    def _user(self, user_id: str | None) -> str | None:
        return user_id and self._pseudonyms.of("u", user_id)

    def _merchant(self, merchant_id: str) -> str:
        return self._pseudonyms.of("m", merchant_id)

    def _code(self, code: str) -> str:
        """One that no rule knows may be anything: it stays if it looks like a code or is public."""
        return code if is_code_word(code) or code in self._public else self._pseudonyms.of("x", code)

    def _promotion(self, name: str) -> str:
        """A name of a campaign or group stays; one made from the payer's id does not."""
        if self._user_id is None or self._user_id not in name:
            return name
        return self._pseudonyms.of("p", name)


def _codes_of(channel: Channel) -> Iterator[str]:
    yield from (channel.channel_id, channel.kind, *(channel.brands or ()))


def _all_quotas(quotas: Quotas) -> Iterator[Quota]:
    for by_bank in quotas.by_kind.values():
        for found in by_bank.values():
            yield from found
    yield from quotas.unclear
