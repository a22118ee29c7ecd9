"""Every code has a text in every locale, and the faults of a catalog are located."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from cashier.domain.catalog import Catalog
from cashier.domain.facts import AccountType, CardType
from cashier.domain.local_format import Formats
from cashier.domain.order import Blocked
from cashier.domain.pay_method import Kind, ReasonCode, Remedy, RemedyType
from cashier.domain.reason_text import reason
from cashier.domain.refusal import Refusal
from cashier.domain.text_form import Form
from cashier.domain.wording import ChangeText, KindWording
from tests.domain.builders import CATALOG, NOW, World, account, card, channel, cny, one_of_each, request, with_terms

LOCALES = tuple(CATALOG.texts)


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
    ("code", "value", "english", "chinese"),
    [
        (ReasonCode.BELOW_MIN, 12_345, "At least CN¥123.45.", "单笔最低¥123.45"),
        (ReasonCode.ABOVE_SINGLE_LIMIT, 12_345, "At most CN¥123.45 in one payment.", "超出单笔限额（¥123.45）"),
        (ReasonCode.DAILY_LIMIT_EXCEEDED, 12_345, "CN¥123.45 left of today's limit.", "今日额度不足（剩余¥123.45）"),
        (ReasonCode.DAILY_LIMIT_EXCEEDED, 0, "Today's limit is used up.", "今日额度已用完"),
        (ReasonCode.MONTHLY_LIMIT_EXCEEDED, 1, "CN¥0.01 left of this month's limit.", "本月额度不足（剩余¥0.01）"),
        (ReasonCode.MONTHLY_LIMIT_EXCEEDED, 0, "This month's limit is used up.", "本月额度已用完"),
        (ReasonCode.BALANCE_INSUFFICIENT, 10_000, "Balance too low: CN¥100.00 available.", "余额不足（可用¥100.00）"),
        (ReasonCode.BALANCE_INSUFFICIENT, 0, "Balance too low: CN¥0.00 available.", "余额不足（可用¥0.00）"),
    ],
)
def test_a_payer_reads_how_much_is_left_or_that_nothing_is(
    code: ReasonCode, value: int, english: str, chinese: str
) -> None:
    refusal = Refusal(code, "quota", None, cny(value))
    assert reason(World(request=request(locale="en")).case(), refusal).message == english
    assert reason(World(request=request(locale="zh-CN")).case(), refusal).message == chinese


@pytest.mark.parametrize(
    ("locale", "until", "expected"),
    [
        ("zh-CN", NOW + timedelta(hours=1), "维护中，预计5月15日 21:00恢复"),
        ("zh-CN", NOW + timedelta(days=365), "维护中，预计2027年5月15日 20:00恢复"),
        ("en", NOW + timedelta(hours=1), "Under maintenance until May 15, 21:00."),
        ("zh-CN", None, "系统维护中，请稍后再试"),
    ],
)
def test_the_end_of_a_maintenance_is_shown_by_the_payers_clock(
    locale: str, until: datetime | None, expected: str
) -> None:
    remedy = Remedy(RemedyType.WAIT_UNTIL, until=until)
    refusal = Refusal(ReasonCode.CHANNEL_MAINTENANCE, "channel", remedy)
    assert reason(World(request=request(locale=locale)).case(), refusal).message == expected


def test_a_text_of_an_operator_takes_the_place_of_all_forms() -> None:
    reasons = {**CATALOG.texts["en"].reasons, ReasonCode.DAILY_LIMIT_EXCEEDED: "{amount} today. {until}"}
    case = World(catalog=with_wording(reasons=reasons)).case()
    refusal = Refusal(ReasonCode.DAILY_LIMIT_EXCEEDED, "quota", None, cny(0))
    assert reason(case, refusal).message == "CN¥0.00 today."


@pytest.mark.parametrize("locale", LOCALES)
def test_every_title_is_rendered_without_placeholders(locale: str) -> None:
    world = one_of_each(request=request(locale=locale), accounts=(account(4_000), account(50_000, "b_2")))
    methods = world.methods()
    assert len(methods) == 13
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
        (
            {"reasons": {**dict.fromkeys(ReasonCode, "x"), ReasonCode.BELOW_MIN: {Form.UNTIL: "x"}}},
            "[en.reasons] BELOW_MIN has no general",
        ),
        (
            {"reasons": {**dict.fromkeys(ReasonCode, "x"), ReasonCode.BELOW_MIN: {Form.GENERAL: "{x}"}}},
            "[en.reasons] BELOW_MIN general: '{x}' cannot be filled in",
        ),
        ({"changes": {ChangeText.PRICE: "{amount}"}}, "[en.changes] PRICE: '{amount}' cannot be filled in"),
        ({"formats": Formats(months=("Jan",))}, "[en.formats] months names 1 of twelve"),
        ({"formats": Formats(amounts={"CNY": "{value}"})}, "[en.formats] amounts CNY: '{value}' cannot be filled in"),
        ({"formats": Formats(time="{day:x02}")}, "[en.formats] time: '{day:x02}' cannot be filled in"),
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
