"""From a consultation to the view of a checkout. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice

from msgspec import UNSET, Struct, ValidationError, convert

from cashier.consultation.answer import Consultation
from cashier.domain.local_format import format_percentage
from cashier.domain.money import Money
from cashier.domain.order import MAX_NAMED_PROMOTIONS, Blocked, Named
from cashier.domain.pan import looks_issued
from cashier.domain.pay_method import (
    Amounts,
    Availability,
    Health,
    Kind,
    Leg,
    LegType,
    NextAction,
    OfferedPromotion,
    Option,
    PayMethod,
    Remedy,
    RemedyType,
)
from cashier.fanout.ask import SourceStatus
from cashier.pages.views import (
    AmountLine,
    AmountView,
    CheckoutView,
    CouponRow,
    CouponsView,
    Form,
    InstalmentView,
    Link,
    MethodRow,
    Notice,
    OptionRow,
    State,
)
from cashier.pages.writing import Writing
from cashier.sources.marketing import MARKETING

METHOD_NAME, COUPON_NAME, COUPONS_NAME = "method", "coupon", "coupons"
# Fields of a submit that a page can give by itself. A method that needs another has no row.
_OWN_FIELDS = frozenset({"option_id", "return_url"})
# Rows that are not folded.
_RECOMMENDED = 4
# One more row takes no more place than the fold.
_FOLDED_FROM = 2
# Of the title that a payment page repeats.
MAX_TITLE = 128
# A submit sends the titles of all methods, beside the token of the offer, and a form has bounds. A
# payment whose title is left out names its kind.
_MOST_TITLES, _TITLES_BYTES = 100, 12_288
_STATES = {
    Availability.AVAILABLE: State.AVAILABLE,
    Availability.UNDETERMINED: State.CHECKING,
    Availability.UNAVAILABLE: State.UNAVAILABLE,
}
_HINTS = {
    NextAction.CHALLENGE: "hint_challenge",
    NextAction.REDIRECT: "hint_redirect",
    NextAction.DISPLAY_QR: "hint_qr",
    NextAction.DISPLAY_CODE: "hint_code",
    NextAction.DISPLAY_VA: "hint_account",
    NextAction.SDK: "hint_app",
}
_OPTION_ICONS = {Kind.NET_BANKING: "bank/{}", Kind.VA: "bank/{}", Kind.OTC: "store/{}"}
# What a payer can do about a refusal. The amount and the currency are the order's.
REMEDIES = frozenset(
    {RemedyType.TOP_UP, RemedyType.BIND_CARD, RemedyType.UPDATE_CARD, RemedyType.WAIT_UNTIL, RemedyType.RETRY}
)
_UNSTEADY = frozenset({Health.FLUCTUATING, Health.DOWN})
_ANSWERED = frozenset({SourceStatus.FRESH, SourceStatus.CACHED, SourceStatus.STALE})


class CheckoutAddresses(Struct, frozen=True):
    """`page`: of the checkout. `here`: with the present choice of coupons.

    `updates`: the event stream of another choice. `remedies`: pages of the platform where payers
    can help themselves. `vault`: of the page that leads to one; None without.
    """

    page: str
    here: str
    pay: str
    updates: str | None = None
    remedies: Mapping[RemedyType, str] = {}
    vault: str | None = None


class Chosen(Struct, frozen=True):
    """What the payer has chosen so far. `promotions`: None for the best, as in a consultation.

    `has_card`: a card has been entered for this attempt.
    """

    promotions: tuple[str, ...] | None = None
    method_id: str | None = None
    option_id: str | None = None
    has_card: bool = False


def checkout_view(
    consultation: Consultation,
    writing: Writing,
    addresses: CheckoutAddresses,
    fields: Sequence[tuple[str, str]],
    chosen: Chosen,
    notice: Notice | None = None,
    resume: Link | None = None,
) -> CheckoutView:
    """`fields`: hidden ones of the form. The consult token and the coupons are added."""
    own = _OWN_FIELDS | ({"card_token"} if addresses.vault else set())
    offered = [
        method
        for method in consultation.methods
        if own.issuperset(method.required_fields) and _can_be_sent(method.method_id)
    ]
    rows = tuple(_method_row(method, writing, addresses, chosen) for method in offered)
    recommended, others, refused = _folded(rows)
    coupons = _coupons(offered, writing, addresses, chosen)
    hidden = (*fields, ("consult_token", consultation.consult_token), *promotion_fields(chosen.promotions))
    return CheckoutView(
        form=Form(addresses.pay, (*hidden, *_titles(rows))),
        method_name=METHOD_NAME,
        recommended=recommended,
        others=others,
        refused=refused,
        coupons=coupons,
        checking_coupons=coupons is None and MARKETING.name in missing_sources(consultation),
        notice=notice,
        blocked=_blocked(consultation, writing),
        paid=consultation.blocked is not None and consultation.blocked.code is Blocked.ORDER_PAID,
        resume=resume,
        checking=any(row.state is State.CHECKING for row in rows),
    )


def missing_sources(consultation: Consultation) -> frozenset[str]:
    """Those whose answers it is without. What was not to be asked is not missing."""
    if not consultation.degraded:
        return frozenset()
    return frozenset(report.name for report in consultation.sources if report.status not in _ANSWERED)


def _blocked(consultation: Consultation, writing: Writing) -> str | None:
    """Why nothing can be paid. The shop names the amount, so loading the page again is no help."""
    blocked = consultation.blocked
    if blocked is not None and blocked.code is Blocked.AMOUNT_MISMATCH:
        return str(writing.labels.amount_differs)
    return None if blocked is None else blocked.message


def promotion_fields(promotions: tuple[str, ...] | None) -> tuple[tuple[str, str], ...]:
    """The choice of coupons as fields of a form or parameters of an address; none for the best."""
    if promotions is None:
        return ()
    return tuple((COUPON_NAME, each) for each in promotions) or ((COUPONS_NAME, "none"),)


def read_promotions(fields: Sequence[tuple[str, str]]) -> tuple[str, ...] | None:
    """The opposite of `promotion_fields`. A button counts more than the boxes beside it."""
    mode = next((value for name, value in fields if name == COUPONS_NAME), None)
    if mode == "none":
        return ()
    named = tuple(dict.fromkeys(value for name, value in fields if name == COUPON_NAME))
    return None if mode == "best" or not named else named


@lru_cache(maxsize=4096)
def element_key(prefix: str, value: str) -> str:
    """An element id, the same in every document. Ids of methods may hold any character."""
    return f"{prefix}-{hashlib.sha256(value.encode()).hexdigest()[:10]}"


def option_name(method_id: str) -> str:
    """The field that names the option of this method."""
    return element_key("option", method_id)


def title_name(method_id: str) -> str:
    """The field that repeats the title of this method, which no other page can look up."""
    return element_key("title", method_id)


def _titles(rows: Sequence[MethodRow]) -> Iterator[tuple[str, str]]:
    """Of the methods that can be chosen, the best first, as many as a form has room for."""
    left = _TITLES_BYTES
    for row in islice((row for row in rows if row.state is State.AVAILABLE), _MOST_TITLES):
        title = row.title[:MAX_TITLE]
        # At most three bytes for each, in a form.
        left -= 3 * len(title.encode())
        if left < 0:
            return
        yield title_name(row.value), title


def _folded(rows: tuple[MethodRow, ...]) -> tuple[tuple[MethodRow, ...], ...]:
    """The first ones, the folded ones, and those of the folded ones that are refused.

    The service ranks: usable methods first.
    """
    usable = sum(row.state is not State.UNAVAILABLE for row in rows)
    first = min(usable, _RECOMMENDED)
    if len(rows) - first < _FOLDED_FROM:
        return rows, (), ()
    return rows[:first], rows[first:usable], rows[usable:]


def _method_row(method: PayMethod, writing: Writing, addresses: CheckoutAddresses, chosen: Chosen) -> MethodRow:
    key = element_key("m", method.method_id)
    # The reason why a method is still being checked is left out: it is asked for again.
    reason = method.reason if method.availability is Availability.UNAVAILABLE else None
    remedy = reason.remedy if reason and reason.remedy and reason.remedy.type in REMEDIES else None
    help_text = _remedy_text(remedy, writing) if remedy else None
    link = _remedy_link(remedy, help_text, addresses) if remedy and help_text else None
    wanted = method.preferred if chosen.method_id is None else method.method_id == chosen.method_id
    return MethodRow(
        key=key,
        kind=method.kind,
        value=method.method_id,
        title=method.title,
        icon=method.icon,
        state=_STATES[method.availability],
        amount=_amount_view(method.amount, method.legs, writing) if method.amount else None,
        badges=tuple(_badges(method, writing)),
        hint=_hint(method, writing, chosen),
        reason=reason.message if reason else None,
        remedy=None if link else help_text,
        remedy_link=link,
        options=tuple(
            _option_row(key, method, option, writing, chosen)
            for option in method.options
            if _can_be_sent(option.option_id)
        ),
        option_name=option_name(method.method_id),
        checked=wanted and method.availability is Availability.AVAILABLE,
    )


def _can_be_sent(named: str) -> bool:
    """Whether a payment can name it: in bounds, and nothing that looks like a card number."""
    try:
        convert(named, Named)
    except ValidationError:
        return False
    return not looks_issued(named)


def _option_row(key: str, method: PayMethod, option: Option, writing: Writing, chosen: Chosen) -> OptionRow:
    amount, terms, icon = option.amount, option.terms, _OPTION_ICONS.get(method.kind)
    state = _STATES[option.availability]
    differs = amount is not None and (amount != method.amount or terms is not None)
    return OptionRow(
        key=element_key(f"{key}-o", option.option_id),
        value=option.option_id,
        title=option.title,
        icon=icon.format(option.option_id.lower()) if icon else None,
        state=state,
        reason=option.reason.message if option.reason and state is State.UNAVAILABLE else None,
        amount=_amount_view(amount, (), writing) if amount is not None and differs else None,
        instalment=None
        if terms is None
        else InstalmentView(
            count=terms.count,
            each=writing.amount(terms.per_instalment),
            annual_rate=format_percentage(terms.apr_bps, writing.formats),
            last=writing.amount(terms.last_instalment) if terms.last_instalment != terms.per_instalment else None,
        ),
        checked=method.method_id == chosen.method_id and option.option_id == chosen.option_id,
    )


def _amount_view(amount: Amounts, legs: Sequence[Leg], writing: Writing) -> AmountView:
    return AmountView(
        payable=writing.amount(amount.payable),
        order=writing.amount(amount.order),
        discounts=tuple(AmountLine(each.title, writing.discount(each.amount)) for each in amount.discounts),
        fee=writing.amount(amount.fee) if amount.fee.value else None,
        parts=tuple(AmountLine(_leg_title(leg, writing), writing.amount(leg.amount)) for leg in legs),
    )


def _leg_title(leg: Leg, writing: Writing) -> str:
    return writing.kind(Kind.BALANCE if leg.type is LegType.BALANCE else Kind.QUICK_PAY)


def _badges(method: PayMethod, writing: Writing) -> Iterator[str]:
    if "LAST_USED" in method.rank_reasons:
        yield str(writing.labels.badge_last_used)
    if method.amount is not None and method.amount.discounts:
        saved = sum(each.amount.value for each in method.amount.discounts)
        yield str(writing.labels.badge_saves).format(amount=writing.amount(Money(method.amount.order.currency, saved)))
    if method.health in _UNSTEADY:
        yield str(writing.labels.badge_unsteady)


def _hint(method: PayMethod, writing: Writing, chosen: Chosen) -> str | None:
    if method.legs:
        names = {"account": writing.kind(Kind.BALANCE), "card": writing.kind(Kind.QUICK_PAY)}
        return str(writing.labels.hint_split).format(**names)
    name = _HINTS.get(method.next_action)
    if "card_token" in method.required_fields:
        name = "hint_card_entered" if chosen.has_card else "hint_card"
    return None if name is None else str(getattr(writing.labels, name))


def _remedy_text(remedy: Remedy, writing: Writing) -> str:
    amount = writing.amount(remedy.amount) if remedy.amount else ""
    until = writing.time(remedy.until) if remedy.until else ""
    return str(getattr(writing.labels, f"remedy_{remedy.type.lower()}")).format(amount=amount, until=until)


def _remedy_link(remedy: Remedy, text: str, addresses: CheckoutAddresses) -> Link | None:
    if remedy.type is RemedyType.RETRY:
        return Link(text, addresses.here)
    url = addresses.remedies.get(remedy.type)
    return None if url is None else Link(text, url, external=True)


def _coupons(
    methods: Sequence[PayMethod], writing: Writing, addresses: CheckoutAddresses, chosen: Chosen
) -> CouponsView | None:
    usable = [method for method in methods if method.promotions is not UNSET]
    offers: dict[str, list[tuple[PayMethod, OfferedPromotion]]] = {}
    for method in usable:
        for promotion in method.promotions or ():
            offers.setdefault(promotion.promotion_id, []).append((method, promotion))
    # The most valuable come first. Those beyond the bound count as long as the payer chooses none.
    choosable = [promotion_id for promotion_id in offers if _can_be_sent(promotion_id)][:MAX_NAMED_PROMOTIONS]
    if not choosable:
        return None
    saved = [
        Money(amount.order.currency, sum(each.amount.value for each in amount.discounts))
        for method in usable
        if (amount := method.amount) is not None and amount.discounts
    ]
    return CouponsView(
        form=Form(addresses.page),
        name=COUPON_NAME,
        mode_name=COUPONS_NAME,
        live=addresses.updates,
        coupons=tuple(_coupon_row(offers[each], len(methods), writing, chosen) for each in choosable),
        automatic=chosen.promotions is None,
        saved=writing.discount(max(saved, key=lambda money: money.value)) if saved else None,
    )


def _coupon_row(
    offers: Sequence[tuple[PayMethod, OfferedPromotion]], method_count: int, writing: Writing, chosen: Chosen
) -> CouponRow:
    promotion = max((each for _, each in offers), key=lambda each: each.amount.value)
    best = any(each.best for _, each in offers)
    kinds = map(writing.kind, dict.fromkeys(method.kind for method, _ in offers))
    return CouponRow(
        key=element_key("c", promotion.promotion_id),
        value=promotion.promotion_id,
        title=promotion.title,
        amount=writing.discount(promotion.amount),
        checked=best if chosen.promotions is None else promotion.promotion_id in chosen.promotions,
        best=best,
        applies_to=", ".join(dict.fromkeys(kinds)) if len(offers) < method_count else None,
    )
