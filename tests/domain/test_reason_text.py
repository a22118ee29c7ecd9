"""Every code has a text in every locale, and the faults of a catalog are located."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from cashier.domain.catalog import Catalog, KindWording
from cashier.domain.facts import AccountType, CardType
from cashier.domain.order import Blocked
from cashier.domain.pay_method import Kind, ReasonCode, Remedy, RemedyType
from cashier.domain.reason_text import reason
from cashier.domain.refusal import Refusal
from tests.domain.builders import CATALOG, NOW, World, account, card, channel, cny, one_of_each, request, with_terms

LOCALES = ("en", "zh-CN")


def without_braces(text: str) -> bool:
    return bool(text) and "{" not in text and "}" not in text


def with_wording(**changes: Any) -> Catalog:
    """The packaged catalog with other English texts."""
    return structs.replace(CATALOG, texts={**CATALOG.texts, "en": structs.replace(CATALOG.texts["en"], **changes)})


def test_the_packaged_catalog_has_both_locales_and_no_fault() -> None:
    assert set(CATALOG.texts) == set(LOCALES)
    assert CATALOG.faults() == []


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("code", ReasonCode)
def test_every_reason_has_a_text_in_every_locale(code: ReasonCode, locale: str) -> None:
    case = World(request=request(locale=locale)).case()
    full = reason(case, Refusal(code, "quota", Remedy(RemedyType.WAIT_UNTIL, cny(1), NOW), cny(12_345)))
    bare = reason(case, Refusal(code))
    for rendered in (full, bare):
        assert rendered.code is code
        assert without_braces(rendered.message)
        assert rendered.message == rendered.message.strip()


@pytest.mark.parametrize("locale", LOCALES)
def test_every_block_kind_card_type_and_account_type_has_a_text(locale: str) -> None:
    wording = CATALOG.texts[locale]
    assert all(without_braces(wording.blocked[code]) for code in Blocked)
    assert all(without_braces(wording.card_types[member]) for member in CardType)
    assert all(without_braces(wording.accounts[member]) for member in AccountType)
    assert all(without_braces(CATALOG.name(kind, locale)) for kind in Kind)


@pytest.mark.parametrize(
    ("code", "english", "chinese"),
    [
        (ReasonCode.ABOVE_SINGLE_LIMIT, "At most 123.45 CNY in one payment.", "单笔限额 123.45 CNY"),
        (ReasonCode.DAILY_LIMIT_EXCEEDED, "123.45 CNY left of today's limit.", "今日剩余额度 123.45 CNY"),
        (ReasonCode.BELOW_MIN, "At least 123.45 CNY.", "最低支付金额为 123.45 CNY"),
    ],
)
def test_reasons_show_amounts_in_each_locale(code: ReasonCode, english: str, chinese: str) -> None:
    refusal = Refusal(code, "quota", None, cny(12_345))
    assert reason(World(request=request(locale="en")).case(), refusal).message == english
    assert reason(World(request=request(locale="zh-CN")).case(), refusal).message == chinese


@pytest.mark.parametrize("locale", LOCALES)
def test_every_title_is_rendered_without_placeholders(locale: str) -> None:
    world = one_of_each(request=request(locale=locale), accounts=(account(4_000), account(50_000, "b_2")))
    methods = world.methods()
    assert len(methods) == 12
    for method in methods:
        assert without_braces(method.title)
        assert without_braces(method.icon)
        assert all(without_braces(option.title) for option in method.options)


def test_a_chinese_payer_reads_chinese() -> None:
    world = one_of_each(request=request(locale="zh-CN"), accounts=(account(4_000),))
    assert world.method("QUICK_PAY:c_CMB").title == "CMB Bank储蓄卡（1014）"
    assert world.method("BALANCE:b_1+QUICK_PAY").title == "账户余额＋CMB Bank储蓄卡（1014）"


def test_names_from_upstreams_are_never_templates() -> None:
    world = World(
        cards=(card("{x}", "c_1", bank_name="{last4.__class__}"),),
        channels=(
            channel(Kind.WALLET, "{0}", provider_name="{provider_name}"),
            channel(Kind.VA, "{1}", provider_name="{"),
        ),
    )
    assert world.method("QUICK_PAY:c_1").title == "{last4.__class__} debit card (1014)"
    assert world.method("WALLET:{0}").title == "{provider_name}"
    assert world.option("VA", "{1}").title == "{"


@pytest.mark.parametrize(
    ("wanted", "best_match"),
    [
        (None, "en"),
        ("en", "en"),
        ("zh-CN", "zh-CN"),
        ("zh_cn", "zh-CN"),
        ("ZH-CN", "zh-CN"),
        ("zh", "zh-CN"),
        ("zh-TW", "zh-CN"),
        ("zh-Hans-CN", "zh-CN"),
        ("en-GB", "en"),
        ("EN", "en"),
        ("fr", "en"),
        ("e", "en"),
    ],
)
def test_the_best_matching_locale_is_used(wanted: str | None, best_match: str) -> None:
    assert CATALOG.locale(wanted) == best_match


def test_the_same_region_matches_better_than_the_same_language() -> None:
    texts = {"zh-CN": CATALOG.texts["zh-CN"], "zh-TW": CATALOG.texts["zh-CN"], "en": CATALOG.texts["en"]}
    assert structs.replace(CATALOG, texts=texts).locale("zh_tw") == "zh-TW"


def faults(catalog: Catalog) -> str:
    [fault] = catalog.faults()
    return fault


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"reasons": {code: "x" for code in ReasonCode if code is not ReasonCode.CARD_FROZEN}},
            "[en.reasons] has no CARD_FROZEN",
        ),
        (
            {"blocked": {code: "x" for code in Blocked if code is not Blocked.ORDER_PAID}},
            "[en.blocked] has no ORDER_PAID",
        ),
        ({"card_types": {CardType.DEBIT: "x"}}, "[en.card_types] has no CREDIT"),
        ({"accounts": {AccountType.BALANCE: "x", AccountType.GIFT: "x"}}, "[en.accounts] has no MONEY_FUND"),
        ({"combined": "{account} and {cards}"}, "combined"),
    ],
)
def test_a_missing_text_is_a_fault(changes: dict[str, Any], expected: str) -> None:
    assert expected in faults(with_wording(**changes))


@pytest.mark.parametrize(
    "text", ["{amuont}", "{", "}", "{0}", "{}", "{amount.x}", "{amount[0]}", "{amount[x]}", "{amount:d}", "{amount!x}"]
)
def test_a_text_that_cannot_be_rendered_is_a_fault_and_does_not_raise(text: str) -> None:
    reasons = {**CATALOG.texts["en"].reasons, ReasonCode.BELOW_MIN: text}
    assert "[en.reasons] BELOW_MIN" in faults(with_wording(reasons=reasons))


def test_a_kind_needs_its_table_and_a_text_in_every_locale() -> None:
    without = {kind: terms for kind, terms in CATALOG.methods.items() if kind is not Kind.OTC}
    assert faults(structs.replace(CATALOG, methods=without)) == "methods: OTC has no table"
    kinds = {kind: wording for kind, wording in CATALOG.texts["en"].kinds.items() if kind is not Kind.OTC}
    nameless = with_wording(kinds=kinds)
    assert faults(nameless) == "texts: [en.kinds] has no OTC"
    half = structs.replace(nameless.methods[Kind.OTC], name={"en": "Shop"})
    assert faults(structs.replace(nameless, methods={**nameless.methods, Kind.OTC: half})) == faults(nameless)
    named = structs.replace(half, title={"en": "At {provider_name}"})
    assert structs.replace(nameless, methods={**nameless.methods, Kind.OTC: named}).faults() == []
    assert "OTC.title" in faults(with_terms(Kind.OTC, title={"en": "{bank}", "zh-CN": "x"}))
    odd = {**CATALOG.texts["en"].kinds, Kind.OTC: KindWording("x", "{bank}")}
    assert "[en.kinds] title of OTC" in faults(with_wording(kinds=odd))
    assert "OTC icon" in faults(with_terms(Kind.OTC, icon="{bank}"))


def test_a_default_locale_without_texts_is_a_fault() -> None:
    assert "[fr], which is the default locale" in faults(structs.replace(CATALOG, default_locale="fr"))


def test_a_fee_that_would_never_be_charged_is_a_fault() -> None:
    assert "BALANCE.fee_bps cannot be charged" in faults(with_terms(Kind.BALANCE, fee_bps=10))
