"""How a page is written: its language, the payer's clock, and the texts of the service."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace

from cashier.domain.catalog import Catalog
from cashier.domain.kinds import KINDS
from cashier.domain.local_format import Formats, format_amount, format_time
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_resource import Challenge, Payment
from cashier.domain.text_form import Form
from cashier.domain.wording import PayerProblem, ProblemWording, Wording, text_of
from cashier.pages.texts import PAGE_TEXTS, page_locale

_MINUS = "\u2212"


class Writing:
    """For one page. `country`: of the order, for its clock; empty writes times in UTC.

    `labels`: of the pages' own texts.
    """

    def __init__(self, catalog: Catalog, locale: str, now: datetime, country: str = "") -> None:
        self.catalog = catalog
        self.locale = locale
        self.now = now
        self.country = country
        self.wording: Wording = catalog.wording(locale)
        self.formats: Formats = self.wording.formats
        self.labels: SimpleNamespace = PAGE_TEXTS[page_locale(locale)]
        # Methods of a page cost much the same.
        self._amounts: dict[Money, str] = {}

    def __repr__(self) -> str:
        return f"<Writing {self.locale}>"

    def amount(self, money: Money) -> str:
        text = self._amounts.get(money)
        if text is None:
            text = self._amounts[money] = format_amount(money, self.formats)
        return text

    def discount(self, money: Money) -> str:
        return f"{_MINUS}{self.amount(money)}"

    def time(self, at: datetime) -> str:
        return format_time(at, self.now, self.country, self.formats)

    def kind(self, kind: Kind) -> str:
        return self.catalog.name(kind, self.catalog.locale(self.locale))

    def problem(self, problem: PayerProblem) -> ProblemWording:
        """The service's own words. A locale of the configuration may lack them: English then."""
        found = self.wording.problems.get(problem) or self.catalog.texts["en"].problems.get(problem)
        return found or ProblemWording(title=problem, message=problem)

    def message(self, payment: Payment, kind: Kind) -> str | None:
        """The message of a payment in this language. None if it has parts that only the core knows:
        sums, and the title of a promotion."""
        code, challenge = payment.message.code, payment.challenge
        form = Form.GENERAL if KINDS[kind].returns_to_source else Form.NO_WAY_BACK
        if challenge is not None:
            return self._of_challenge(code, challenge)
        try:
            return text_of(self.wording.payments[code], form).format()
        except KeyError:
            return None

    def wrong_answer(self, payment: Payment) -> str | None:
        """Of the challenge that is open: the last answer did not pass."""
        challenge = payment.challenge
        return None if challenge is None else self._of_challenge(MessageCode.CHALLENGE_WRONG, challenge)

    def _of_challenge(self, code: MessageCode, challenge: Challenge) -> str:
        form = Form(challenge.type.lower())
        return text_of(self.wording.payments[code], form).format(attempts=challenge.attempts_left)
