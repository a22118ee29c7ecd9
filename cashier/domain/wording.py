"""Wording: the texts of one locale, in the shape of its table in `texts.toml`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct, field

from cashier.domain.facts import AccountType, CardType
from cashier.domain.local_format import Formats
from cashier.domain.order import Blocked
from cashier.domain.pay_method import Kind, ReasonCode
from cashier.domain.payment_message import RETURN_PROMISES, MessageCode
from cashier.domain.text_form import Form

Text = Annotated[str, Meta(min_length=1)]
# A text, or its forms.
Forms: TypeAlias = Text | dict[Form, Text]


def text_of(forms: Forms, form: Form = Form.GENERAL) -> str:
    """The text of this form, or the general one."""
    return forms if isinstance(forms, str) else forms.get(form) or forms[Form.GENERAL]


class KindWording(Struct, frozen=True, forbid_unknown_fields=True):
    """The texts of one kind in one locale.

    `name`: of the kind. `title`: template for one method of it, with any of `{bank_name} {type}
    {last4} {provider_name} {account}`.
    """

    name: Text
    title: Text


class PayerProblem(StrEnum):
    """The problems of a request that a payer may read about, by the code of their document."""

    RISK_REJECTED = "RISK_REJECTED"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - the name of a problem, not a token
    ORDER_UNKNOWN = "ORDER_UNKNOWN"
    CONSULT_CHANGED = "CONSULT_CHANGED"
    ORDER_BUSY = "ORDER_BUSY"
    NOT_RESUMABLE = "NOT_RESUMABLE"
    NOT_RESENDABLE = "NOT_RESENDABLE"
    IN_FLIGHT = "IN_FLIGHT"
    INVALID = "INVALID"
    KEY_REUSED = "KEY_REUSED"
    INTERNAL = "INTERNAL"
    NOT_READY = "NOT_READY"
    OVERLOADED = "OVERLOADED"
    RATE_LIMITED = "RATE_LIMITED"
    REQUIRED_SOURCE_UNAVAILABLE = "REQUIRED_SOURCE_UNAVAILABLE"
    CHECK_UNAVAILABLE = "CHECK_UNAVAILABLE"
    STATUS_UNAVAILABLE = "STATUS_UNAVAILABLE"
    ENGINE_UNAVAILABLE = "ENGINE_UNAVAILABLE"


class ProblemWording(Struct, frozen=True, forbid_unknown_fields=True):
    """`message`: what happened to the payment, and what the payer can do."""

    title: Text
    message: Text


class ChangeText(StrEnum):
    """What changed in an offer, where no reason says it."""

    PRICE = "PRICE"
    NEW_PRICE = "NEW_PRICE"
    ORDER_AMOUNT = "ORDER_AMOUNT"
    FEE = "FEE"
    INSTALMENTS = "INSTALMENTS"
    ANNUAL_RATE = "ANNUAL_RATE"
    PART = "PART"
    BALANCE = "BALANCE"
    PROMOTION_GONE = "PROMOTION_GONE"


class Wording(Struct, frozen=True, forbid_unknown_fields=True):
    """The texts of one locale.

    `reasons` may contain `{amount}`, `{until}` and `{source}`, `payments` `{attempts}`,
    `{promotion}` and `AMOUNT_PARTS`, `changes` `{before}` and `{after}`. `combined`: the title of
    a split payment, with `{account}` and `{card}`. `instalments`: the title of a term, with
    `{count}`, and with `{amount}` of each but the last. `kinds`: one may be absent if its terms
    name it in this locale. Without `problems` and `changes` a locale has English titles and no
    messages there.
    """

    reasons: dict[ReasonCode, Forms]
    blocked: dict[Blocked, Text]
    card_types: dict[CardType, Text]
    accounts: dict[AccountType, Text]
    payments: dict[MessageCode, Forms]
    combined: Text
    instalments: Text = "{count} × {amount}"
    kinds: dict[Kind, KindWording] = field(default_factory=dict)
    problems: dict[PayerProblem, ProblemWording] = field(default_factory=dict)
    changes: dict[ChangeText, Text] = field(default_factory=dict)
    formats: Formats = Formats()

    def faults(self, locale: str, named: Set[Kind]) -> Iterator[str]:
        """One sentence per text that is missing or cannot be filled in.

        `named`: the kinds whose terms have the texts of this locale.
        """
        where = f"texts: [{locale}"
        yield from _missing(f"{where}.reasons]", self.reasons, ReasonCode)
        yield from _missing(f"{where}.blocked]", self.blocked, Blocked)
        yield from _missing(f"{where}.card_types]", self.card_types, CardType)
        yield from _missing(f"{where}.accounts]", self.accounts, AccountType)
        yield from _missing(f"{where}.payments]", self.payments, MessageCode)
        yield from _missing(f"{where}.kinds]", self.kinds, (kind for kind in Kind if kind not in named))
        titles = {kind: each.title for kind, each in self.kinds.items()}
        yield from unrenderable(f"{where}.kinds] title of", titles, *TITLE_PARTS)
        yield from _unrenderable_forms(f"{where}.reasons]", self.reasons, "amount", "until", "source")
        yield from _unrenderable_forms(f"{where}.payments]", self.payments, "attempts", "promotion", *AMOUNT_PARTS)
        for code in sorted(RETURN_PROMISES.intersection(self.payments)):
            forms = self.payments[code]
            if isinstance(forms, str) or Form.NO_WAY_BACK not in forms:
                yield f"{where}.payments] {code} has no {Form.NO_WAY_BACK}, for money that cannot go back as it came"
        yield from unrenderable(f"{where}.changes]", self.changes, "before", "after")
        yield from unrenderable(f"{where}]", {"combined": self.combined}, "account", "card")
        yield from unrenderable(f"{where}]", {"instalments": self.instalments}, "count", "amount")
        yield from (f"{where}.formats] {fault}" for fault in self.formats.faults())


Texts = dict[str, Wording]
# Of a payment for which another sum arrived than was due.
AMOUNT_PARTS = ("received", "due", "difference")
TITLE_PARTS = ("bank_name", "type", "last4", "provider_name", "account")


def _missing(where: str, texts: Mapping[Any, object], codes: Iterable[str]) -> Iterator[str]:
    return (f"{where} has no {code}" for code in codes if code not in texts)


def _unrenderable_forms(where: str, texts: Mapping[Any, Forms], *parts: str) -> Iterator[str]:
    for code, forms in texts.items():
        if isinstance(forms, str):
            yield from unrenderable(where, {code: forms}, *parts)
        elif Form.GENERAL not in forms:
            yield f"{where} {code} has no {Form.GENERAL}"
        else:
            yield from unrenderable(f"{where} {code}", forms, *parts)


def unrenderable(where: str, texts: Mapping[Any, str], *parts: str) -> Iterator[str]:
    for key, text in texts.items():
        try:
            text.format(**dict.fromkeys(parts, ""))
        except (LookupError, AttributeError, TypeError, ValueError) as fault:
            yield f"{where} {key}: {text!r} cannot be filled in ({fault!r}); known are {', '.join(parts)}"
