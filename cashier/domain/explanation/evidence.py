"""Evidence: what one consultation had before it, and the configuration that judged it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from cashier.domain.catalog import Catalog
from cashier.domain.channel_record import ChannelRecord
from cashier.domain.explanation.schema import Fact, SourceEvidence
from cashier.domain.money import Money
from cashier.domain.order import (
    ConsultRequest,
    Country,
    Id,
    Locale,
    Order,
    Product,
    Promotions,
    Terminal,
    require_payer,
)
from cashier.domain.ranking import Weights
from cashier.domain.routing_rules import Routing
from cashier.source_errors import Missing

REQUEST, CONFIGURATION, CLOCK = "request", "configuration", "clock"


class Evidence(Struct, frozen=True):
    """`answers`: by source, the answer, None for "there is none", or a `Missing`."""

    request: ConsultRequest
    answers: Mapping[str, Any]
    now: datetime
    sources: tuple[SourceEvidence, ...] = ()

    @property
    def silent(self) -> tuple[str, ...]:
        return tuple(name for name, answer in self.answers.items() if isinstance(answer, Missing))

    def fact(self, name: str, value: Any, source: str) -> Fact:
        report = next((report for report in self.sources if report.name == source), None)
        return Fact(name, value, source) if report is None else Fact(name, value, source, report.status, report.age_ms)


class Judgement(Struct, frozen=True):
    """The configuration, and what this process has learned about channels.

    `routing`: None leaves routes out. `records`, `now_s`: as for `routing.route`. `internals`:
    costs, scores and routes are shown.
    """

    catalog: Catalog
    weights: Weights
    routing: Routing | None
    records: Mapping[str, ChannelRecord] = {}
    now_s: int = 0
    internals: bool = True


class WhyRequest(Struct, frozen=True, kw_only=True):
    """The question of an operator. All but the ids may be left out.

    `product`: the order's own, or SCAN for a walk-in. `terminal`: APP, at a till POS. `amount`,
    `country`: claims, as in a consultation. `fresh`: read no cache; the sources then have as long
    as for the check of a payment.
    """

    order_id: Id
    merchant_id: Id
    user_id: Id | None = None
    product: Product | None = None
    terminal: Terminal | None = None
    amount: Money | None = None
    country: Country | None = None
    locale: Locale | None = None
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] | None = None
    chosen_promotions: Promotions | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        require_payer(self.user_id, self.product or Product.SCAN)

    def consult_request(self, order: Order | None) -> ConsultRequest:
        """The consultation to explain. `order`: None if it has not arrived."""
        product = self.product
        if product is None:
            known = Product.STANDARD_CASHIER if order is None else order.product
            product = Product.SCAN if self.user_id is None else known
        till = Terminal.POS if product is Product.SCAN else Terminal.APP
        return ConsultRequest(
            order_id=self.order_id,
            merchant_id=self.merchant_id,
            user_id=self.user_id,
            product=product,
            terminal=self.terminal or till,
            amount=self.amount,
            country=self.country,
            locale=self.locale,
            deadline_ms=self.deadline_ms,
            chosen_promotions=self.chosen_promotions,
        )
