"""What the kit asks a service about: subjects that exist, and ones that cannot."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from cashier.consultation.source_table import SOURCE_SPECS
from cashier.domain.money import Money
from cashier.fanout.ask import Importance
from cashier.sources.acquirer import ACQUIRER
from cashier.sources.engine import ENGINE
from cashier.sources.source import Source

Inputs = Mapping[str, Any]

# What is asked where neither the caller nor an order says more. The sandbox knows it.
EXAMPLES: Inputs = {
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "amount": Money("CNY", 12_800),
    "currency": "CNY",
    "country": "CN",
}

# Every kind of character that an id may have.
_ALL_CHARACTERS = "aZ9_.:@~-"
_LONGEST_ID = 64
_SILENCE = {
    Importance.REQUIRED: "no consultation of that subject is answered (503 REQUIRED_SOURCE_UNAVAILABLE)",
    Importance.GATING: "every method that this source could refuse is UNDETERMINED",
    Importance.ENRICHING: "offers lack what it adds: discounts and boosts",
}


class ReadSource(Struct, frozen=True, kw_only=True):
    """A source whose reads are tried. `subject`: the input that names what is asked about.

    None for a source without one. `silence`: what a missing answer means to payers.
    """

    source: Source
    subject: str | None
    silence: str

    @property
    def has_entities(self) -> bool:
        """Whether 404 says that the subject itself does not exist, not only that it has none."""
        return self.subject is not None and self.source.to_fact(None, _ANY_INPUTS) is None

    def known(self, inputs: Inputs, ids: tuple[str, ...]) -> list[Inputs]:
        """The inputs with each of `ids` as the subject; without ids those that were given.

        Here and below, examples take the place of missing inputs, but never that of the subject.
        """
        whole = {**EXAMPLES, **inputs}
        if self.subject is None:
            return [whole]
        if not ids:
            return [whole] if self.subject in inputs else []
        return [{**whole, self.subject: each} for each in ids]

    def unknown(self, inputs: Inputs, name: str = "") -> Inputs:
        """The inputs with a subject that cannot exist."""
        assert self.subject is not None, "this source has no subject"  # noqa: S101
        return {**EXAMPLES, **inputs, self.subject: f"conform{name}.{uuid.uuid4().hex}"}

    def strange(self, inputs: Inputs) -> list[Inputs]:
        """Inputs with ids of all characters and of the greatest length."""
        assert self.subject is not None, "this source has no subject"  # noqa: S101
        characters = f"{_ALL_CHARACTERS}{uuid.uuid4().hex}"
        return [{**EXAMPLES, **inputs, self.subject: each} for each in (characters, characters.ljust(_LONGEST_ID, "x"))]


_ANY_INPUTS = {"order_id": "", "user_id": "", "merchant_id": "", "payment_id": ""}
_PAYMENT_SILENCE = {
    "engine": "the payment stays PROCESSING until a look-up settles it",
    "acquirer": "no payment ends: the payer is shown PROCESSING",
}
READ_SOURCES = {
    **{
        spec.source.name: ReadSource(source=spec.source, subject=spec.subject, silence=_SILENCE[spec.importance])
        for spec in SOURCE_SPECS
    },
    "engine": ReadSource(source=ENGINE, subject="payment_id", silence=_PAYMENT_SILENCE["engine"]),
    "acquirer": ReadSource(source=ACQUIRER, subject="order_id", silence=_PAYMENT_SILENCE["acquirer"]),
}
RISK_SILENCE = "no payment is made (503 CHECK_UNAVAILABLE)"
