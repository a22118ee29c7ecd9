"""The payment policy: what a reload replaces, as one value that each operation reads once."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from cashier.domain.catalog import Catalog
from cashier.domain.routing_rules import Routing
from cashier.payments.ports import ConsultUncached
from cashier.payments.settings import AcceptSettings
from cashier.payments.step_feed import StepFeed


class PaymentPolicy(Struct, frozen=True):
    """Settings, offer, routing rules and recheck of one configuration."""

    settings: AcceptSettings
    catalog: Catalog
    routing: Routing
    consult_uncached: ConsultUncached


class Operation(Struct, frozen=True):
    """One call of `PaymentFlow`: the policy at its start, kept to its end, and its headers.

    `steps`: takes its steps, for operators.
    """

    policy: PaymentPolicy
    call_headers: Any
    steps: StepFeed | None = None
