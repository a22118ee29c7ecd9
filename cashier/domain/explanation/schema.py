"""The shape of an explanation, as `POST /v1/why` answers it.

Sentences are English, for operators.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from cashier.domain.money import Money
from cashier.domain.order import ConsultRequest
from cashier.domain.pay_method import Availability, Kind
from cashier.domain.ranking import ScorePart
from cashier.domain.routing import RatedChannel, RouteReason


class Outcome(StrEnum):
    """How the consultation ended.

    ANSWERED: with methods. BLOCKED: the order cannot be paid at all. The others are no answers.
    """

    ANSWERED = "ANSWERED"
    BLOCKED = "BLOCKED"
    ORDER_UNKNOWN = "ORDER_UNKNOWN"
    REQUIRED_SOURCE_UNAVAILABLE = "REQUIRED_SOURCE_UNAVAILABLE"


class Result(StrEnum):
    """What one rule said.

    NOT_REACHED: an earlier rule refused, and its cause cannot be removed in thought (a missing
    channel cannot be invented), so nothing is known of this one.
    """

    PASSED = "PASSED"
    REFUSED = "REFUSED"
    UNDETERMINED = "UNDETERMINED"
    NOT_REACHED = "NOT_REACHED"


class SourceEvidence(Struct, frozen=True):
    """How one source fared. `cause`: why its answer is missing.

    `reason`, `failure`: of its latest failed call, if one has failed in this process: a
    `FailureReason`, and its particulars.
    """

    name: str
    importance: str
    status: str
    started_ms: float
    elapsed_ms: float
    age_ms: int
    cause: str | None = None
    reason: str | None = None
    failure: str | None = None


class Fact(Struct, frozen=True):
    """A value that a rule read.

    `source`: a source, or `request`, `configuration` or `clock`. `status`, `age_ms`: of the
    source's answer, null for the others.
    """

    name: str
    value: Any
    source: str
    status: str | None = None
    age_ms: int | None = None


class Check(Struct, frozen=True):
    """One rule, applied. `code`, `source`, `facts` and `sentence` are empty where it passed."""

    rule: str
    result: Result
    code: str | None = None
    source: str | None = None
    facts: tuple[Fact, ...] = ()
    sentence: str = ""


class LimitExplanation(Struct, frozen=True):
    """One limit in scope. `period`: SINGLE, DAILY or MONTHLY. `scope`: of a quota.

    `tightest`: it is the one that counts.
    """

    period: str
    source: str
    limit: Money
    remaining: Money
    tightest: bool
    used: Money | None = None
    scope: dict[str, str] | None = None


class ChannelExplanation(Struct, frozen=True):
    """A channel that could carry the method, judged as if there were no other.

    `chosen`: the method's price and verdict are this channel's. `checks`: those not passed.
    """

    channel_id: str
    provider: str
    chosen: bool
    availability: Availability
    refused_by: str | None
    code: str | None
    payable: Money | None
    checks: tuple[Check, ...]
    sentence: str


class PromotionExplanation(Struct, frozen=True):
    """A promotion and one order or method. `code`: `APPLIES` or `USED`, else why not."""

    promotion_id: str
    code: str
    value: Money | None
    sentence: str


class RouteRule(Struct, frozen=True):
    rule: str
    matches: bool


class RouteExplanation(Struct, frozen=True):
    """The channel that would carry a payment submitted now, and its alternatives.

    `rules`: in order, up to the first that matches. `channels`: with live figures of this process.
    """

    rules: tuple[RouteRule, ...]
    channel_id: str
    why: RouteReason
    alternatives: tuple[str, ...]
    channels: tuple[RatedChannel, ...]
    sentence: str


class OptionExplanation(Struct, frozen=True):
    """One option of a method: a bank, a chain, a card beside a balance, an instalment term."""

    option_id: str
    availability: Availability
    code: str | None
    source: str | None
    payable: Money | None
    refused_by: str | None
    checks: tuple[Check, ...]
    channels: tuple[ChannelExplanation, ...]
    limits: tuple[LimitExplanation, ...]
    route: RouteExplanation | None


class MethodExplanation(Struct, frozen=True):
    """One method. The first fields are those of the answer; `checks` has every rule in order.

    `refused_by`: the first rule that did not pass. `parts`: of `score`, which is their sum; null
    for a caller that may not see them, as `route` is.
    """

    method_id: str
    availability: Availability
    code: str | None
    source: str | None
    payable: Money | None
    fee: Money | None
    rank: int
    preferred: bool
    rank_reasons: tuple[str, ...]
    refused_by: str | None
    checks: tuple[Check, ...]
    channels: tuple[ChannelExplanation, ...]
    options: tuple[OptionExplanation, ...]
    limits: tuple[LimitExplanation, ...]
    promotions: tuple[PromotionExplanation, ...]
    score: int | None
    parts: tuple[ScorePart, ...] | None
    route: RouteExplanation | None
    sentence: str


class KindExplanation(Struct, frozen=True):
    """One kind. `checks`: the rules of the kind as a whole. `left_out`: why it lists no method."""

    kind: Kind
    checks: tuple[Check, ...]
    left_out: Check | None
    methods: tuple[MethodExplanation, ...]


class Explanation(Struct, frozen=True):
    """Why an order has the payment methods that it has.

    `kinds`: every kind, in the order of assembly; none unless the outcome is ANSWERED. `complete`:
    no method, option or channel was left unexplained because there are too many of them.
    """

    outcome: Outcome
    request: ConsultRequest
    consulted_at: datetime
    blocked: str | None
    degraded: bool
    sources: tuple[SourceEvidence, ...]
    order_checks: tuple[Check, ...]
    promotions: tuple[PromotionExplanation, ...]
    kinds: tuple[KindExplanation, ...]
    complete: bool
    sentence: str
