"""Why a promotion counts for an order or a method, or why it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.explanation.repairs import kinds_carried
from cashier.domain.explanation.schema import PromotionExplanation
from cashier.domain.facts import Promotion
from cashier.domain.kinds import KINDS, Listing
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.domain.promotion import ApplicablePromotion, Inapplicable, UsablePromotions, value_of
from cashier.domain.quote import Quote
from cashier.source_errors import Missing

# Upstreams send thousands at worst; each method lists them again.
MOST_LISTED = 64
APPLIES, USED = "APPLIES", "USED"
_SENTENCES = {
    APPLIES: "It applies to the order.",
    USED: "It is in the best legal set.",
    "NOT_CHOSEN": "The payer chose others, or none.",
    Inapplicable.OTHER_CURRENCY: "Its threshold, value or cap is in another currency than the order.",
    Inapplicable.BELOW_THRESHOLD: "The order is below its threshold of {threshold}.",
    Inapplicable.EXPIRED: "It expired at {expires_at}.",
    Inapplicable.NO_VALUE: "It takes nothing off this order.",
    "COVERS_ORDER_AT_TILL": "It covers the whole order, and at a till the payer must show or confirm something.",
    "BEYOND_MAXIMUM": "More promotions apply than are considered, and the others are worth more.",
    "OTHER_KIND": "It is for {kinds} only.",
    "OTHER_BANK": "It is for the banks {banks} only.",
    "BELOW_STEP": "It is worth less than the channel's step.",
    "SAME_GROUP": "One promotion of its group {group} counts, and another is used.",
    "NOT_STACKABLE": "It, or the one that is used, must be used alone.",
    "ORDER_COVERED": "The others cover the whole order already.",
    "REMAINDER_TOO_SMALL": "With it the remainder would be below the channel's minimum.",
}


def order_promotions(case: ConsultationCase) -> tuple[PromotionExplanation, ...]:
    """The first promotions of the marketing service, and whether it applies to the order at all."""
    marketing = case.facts.marketing
    if isinstance(marketing, Missing):
        return ()
    applicable = {each.promotion.promotion_id for each in case.promotions.applicable}
    return tuple(_of_order(case, promotion, applicable) for promotion in marketing.promotions[:MOST_LISTED])


def _of_order(case: ConsultationCase, promotion: Promotion, applicable: set[str]) -> PromotionExplanation:
    chosen, value = case.request.chosen_promotions, value_of(promotion, case.amount, case.now)
    if isinstance(value, Inapplicable):
        return _explained(case, promotion, value, None)
    if chosen is not None and promotion.promotion_id not in chosen:
        code = "NOT_CHOSEN"
    elif promotion.promotion_id in applicable:
        code = APPLIES
    else:
        code = "COVERS_ORDER_AT_TILL" if case.at_till and value >= case.amount.value else "BEYOND_MAXIMUM"
    return _explained(case, promotion, code, value)


def _explained(case: ConsultationCase, promotion: Promotion, code: str, value: int | None) -> PromotionExplanation:
    sentence = _SENTENCES[code].format(
        threshold=promotion.threshold,
        expires_at=promotion.expires_at,
        kinds=", ".join(sorted(promotion.kinds)),
        banks=", ".join(sorted(promotion.banks or ())) or "of none",
        group=promotion.group,
    )
    return PromotionExplanation(
        promotion.promotion_id, code, None if value is None else Money(case.currency, value), sentence
    )


class _Choice(NamedTuple):
    """The promotions that a method chose from, and those that it uses."""

    usable: UsablePromotions
    bank: str | None
    step: int
    used: frozenset[str]
    covered: bool


def method_promotions(
    case: ConsultationCase, kind: Kind, method_id: str, quote: Quote
) -> tuple[PromotionExplanation, ...]:
    """The most valuable promotions of the order, and whether each counts for this method."""
    amounts, channel = quote.amounts, quote.channel
    if amounts is None:
        return ()
    used = frozenset(discount.promotion_id for discount in amounts.discounts)
    off = sum(discount.amount.value for discount in amounts.discounts)
    choice = _Choice(
        case.promotions.usable_with(frozenset(map(Kind, kinds_carried(kind, method_id)))),
        _bank(kind, quote),
        1 if channel is None else channel.step,
        used,
        off >= case.amount.value,
    )
    return tuple(_of_method(case, choice))


def _of_method(case: ConsultationCase, choice: _Choice) -> Iterator[PromotionExplanation]:
    of_kind = {each.promotion.promotion_id for each in choice.usable.promotions}
    of_bank = {each.promotion.promotion_id for each in choice.usable.usable(choice.bank, 1)}
    in_steps = {each.promotion.promotion_id: each for each in choice.usable.usable(choice.bank, choice.step)}
    used = [each for promotion_id, each in in_steps.items() if promotion_id in choice.used]
    # The most valuable first, so the used ones are among them but for odd groups.
    for applicable in case.promotions.applicable[:MOST_LISTED]:
        promotion_id, value = applicable.promotion.promotion_id, applicable.value
        if promotion_id in choice.used:
            code, value = USED, in_steps[promotion_id].value
        elif promotion_id not in of_kind:
            code = "OTHER_KIND"
        elif promotion_id not in of_bank:
            code = "OTHER_BANK"
        elif promotion_id not in in_steps:
            code = "BELOW_STEP"
        else:
            code = _left_out(applicable, used, covered=choice.covered)
        yield _explained(case, applicable.promotion, code, value)


def _left_out(applicable: ApplicablePromotion, used: list[ApplicablePromotion], *, covered: bool) -> str:
    """Why the best legal set has no place for it."""
    promotion = applicable.promotion
    if any(each.promotion.group == promotion.group for each in used):
        return "SAME_GROUP"
    if used and not (promotion.stackable and all(each.promotion.stackable for each in used)):
        return "NOT_STACKABLE"
    return "ORDER_COVERED" if covered else "REMAINDER_TOO_SMALL"


def _bank(kind: Kind, quote: Quote) -> str | None:
    """The bank that decides which promotions a method may use; None if it is not known yet."""
    listing, channel = KINDS[kind].listing, quote.channel
    if channel is None or listing is Listing.WHOLE_KIND:
        return None
    return channel.provider
