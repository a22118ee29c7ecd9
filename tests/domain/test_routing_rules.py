"""Routing rules: the first match applies, and faults are reported at start."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.channel_record import ChannelOutcome
from cashier.domain.money import Money
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.domain.routing_rules import FailureAttribution, RankBy, RoutedPayment, Routing, RoutingRule, RuleCondition
from cashier.settings.loader import configuration, load, packaged
from cashier.settings.schema import ConfigurationError
from tests.domain.builders import cny

ROOT = Path(__file__).parent.parent.parent
PACKAGED = msgspec.convert(packaged("routing.toml"), Routing)
REST = RoutingRule("rest")


def payment(**changes: Any) -> RoutedPayment:
    plain = RoutedPayment(Kind.CARD, cny(10_000), "CN", Terminal.APP, Product.STANDARD_CASHIER, "m_1", "CMB", "VISA")
    return msgspec.structs.replace(plain, **changes)


def routing(*rules: RoutingRule) -> Routing:
    return Routing(rule=rules)


def faults(*rules: RoutingRule) -> str:
    return "\n".join(routing(*rules).faults())


def test_the_first_matching_rule_applies() -> None:
    rules = routing(
        RoutingRule("visa", RuleCondition(brand="VISA")), RoutingRule("cards", RuleCondition(kind="CARD")), REST
    )
    assert rules.rule_for(payment()).name == "visa"
    assert rules.rule_for(payment(brand="JCB")).name == "cards"
    assert rules.rule_for(payment(kind=Kind.WALLET, brand=None)).name == "rest"


@pytest.mark.parametrize(
    ("when", "other"),
    [
        (RuleCondition(kind=("CARD", "QUICK_PAY")), {"kind": Kind.WALLET}),
        (RuleCondition(brand="VISA"), {"brand": None}),
        (RuleCondition(bank=("ICBC", "CMB")), {"bank": "ABC"}),
        (RuleCondition(merchant="m_1"), {"merchant_id": "m_2"}),
        (RuleCondition(currency="CNY"), {"amount": Money("USD", 10_000)}),
        (RuleCondition(country="CN"), {"country": "JP"}),
        (RuleCondition(terminal=("APP", "H5")), {"terminal": Terminal.POS}),
        (RuleCondition(product="STANDARD_CASHIER"), {"product": Product.SCAN}),
        (RuleCondition(amount_from=10_000), {"amount": cny(9_999)}),
        (RuleCondition(amount_below=10_001), {"amount": cny(10_001)}),
        (RuleCondition(kind="CARD", brand="VISA"), {"brand": "JCB"}),
    ],
)
def test_all_terms_of_a_condition_must_match(when: RuleCondition, other: dict[str, Any]) -> None:
    assert when.matches(payment())
    assert not when.matches(payment(**other))


def test_the_packaged_rules_are_valid_and_equal_the_example() -> None:
    assert PACKAGED.faults() == []
    assert [(rule.name, rule.by, rule.when) for rule in PACKAGED.rule] == [("cheapest_healthy", RankBy.COST, None)]
    assert load(ROOT / "config/cashier.toml").routing == PACKAGED
    assert (Routing(rule=PACKAGED.rule).learning, Routing(rule=PACKAGED.rule).sick) == (
        PACKAGED.learning,
        PACKAGED.sick,
    )


def test_the_commented_rules_of_the_example_are_valid() -> None:
    text = (ROOT / "config/routing.toml").read_text("utf-8")
    shown = text[text.index("# [[rule]]") :]
    uncommented = "\n".join(
        line.removeprefix("# ")
        for line in shown.splitlines()
        if not line.startswith("# ") or "=" in line or "[[" in line
    )
    rules = msgspec.convert(tomllib.loads(uncommented), Routing)
    assert [rule.name for rule in rules.rule] == [
        "visa_by_contract",
        "large_and_safe",
        "balanced_cards",
        "cheapest_healthy",
    ]
    assert rules.faults() == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((RoutingRule("a"), RoutingRule("b")), '"b" can never match: "a" before it matches all of it'),
        (
            (
                RoutingRule("a", RuleCondition(kind="CARD")),
                RoutingRule("b", RuleCondition(kind="CARD", brand="VISA")),
                REST,
            ),
            '"b" can never match: "a" before',
        ),
        (
            (RoutingRule("a", RuleCondition(kind=("CARD", "VA"))), RoutingRule("b", RuleCondition(kind="VA")), REST),
            '"b" can never match',
        ),
        (
            (
                RoutingRule("a", RuleCondition(currency="CNY", amount_from=5)),
                RoutingRule("b", RuleCondition(currency="CNY", amount_from=9, amount_below=20)),
                REST,
            ),
            '"b" can never match',
        ),
        ((RoutingRule("a", RuleCondition(kind="CARD")),), '"a" is the last and has a `when`'),
        ((RoutingRule("a", RuleCondition(kind="CARD")), RoutingRule("a")), 'number 2 is named "a" like number 1'),
        (
            (RoutingRule("a", RuleCondition(kind="QUIK_PAY")), REST),
            "when.kind = 'QUIK_PAY' is unknown; did you mean 'QUICK_PAY'?",
        ),
        (
            (RoutingRule("a", RuleCondition(kind=("CARD", "XYZZY"))), REST),
            "when.kind = 'XYZZY' is unknown; known are QUICK_PAY, AGREEMENT",
        ),
        ((RoutingRule("a", RuleCondition(terminal="POSS")), REST), "did you mean 'POS'?"),
        ((RoutingRule("a", RuleCondition(product="SCAM")), REST), "did you mean 'SCAN'?"),
        ((RoutingRule("a", RuleCondition(currency="CNX")), REST), "when.currency = 'CNX' is unknown"),
        (
            (RoutingRule("a", RuleCondition(currency="CNY", amount_from=9, amount_below=9)), REST),
            "amount_from = 9 is not below amount_below = 9",
        ),
        ((RoutingRule("a", RuleCondition(amount_from=9)), REST), "name it in when.currency"),
        ((RoutingRule("a", RuleCondition(currency=("CNY", "JPY"), amount_below=9)), REST), "name it in when.currency"),
        ((RoutingRule("a", RuleCondition(bank=())), REST), "when.bank is an empty list, so nothing matches"),
        ((RoutingRule("a", prefer=("x", "y"), avoid=("y",)),), "y is both preferred and avoided"),
        ((RoutingRule("a", success_weight=3),), 'are for by = "balanced", but this rule has by = "cost"'),
        ((RoutingRule("a", by=RankBy.BALANCED, cost_weight=0),), "a weight of 0 is not balanced"),
    ],
)
def test_faults_of_rules_are_reported(rules: tuple[RoutingRule, ...], expected: str) -> None:
    assert expected in faults(*rules)


@pytest.mark.parametrize(
    "rules",
    [
        (
            RoutingRule("a", RuleCondition(kind="CARD", brand="VISA")),
            RoutingRule("b", RuleCondition(kind="CARD")),
            REST,
        ),
        (RoutingRule("a", RuleCondition(kind="CARD")), RoutingRule("b", RuleCondition(brand="VISA")), REST),
        (
            RoutingRule("a", RuleCondition(currency="CNY", amount_from=9)),
            RoutingRule("b", RuleCondition(currency="CNY", amount_below=20)),
            REST,
        ),
        (
            RoutingRule("a", RuleCondition(currency="CNY", amount_below=9)),
            RoutingRule("b", RuleCondition(currency="CNY")),
            REST,
        ),
    ],
)
def test_overlapping_rules_are_valid(rules: tuple[RoutingRule, ...]) -> None:
    assert faults(*rules) == ""


WORDS = st.one_of(
    st.none(), st.lists(st.sampled_from(["CARD", "VA", "OTC"]), min_size=1).map(tuple), st.sampled_from(["CARD", "VA"])
)
AMOUNTS = st.one_of(st.none(), st.integers(0, 6))
CONDITIONS = st.builds(
    RuleCondition, kind=WORDS, amount_from=AMOUNTS, amount_below=AMOUNTS, brand=st.sampled_from([None, "VISA"])
)


PAYMENTS = [
    payment(kind=kind, brand=brand, amount=cny(value))
    for kind in (Kind.CARD, Kind.VA, Kind.OTC, Kind.WALLET)
    for brand in ("VISA", None)
    for value in range(8)
]


@given(CONDITIONS, CONDITIONS)
def test_a_condition_that_covers_another_matches_all_its_payments(
    condition: RuleCondition, other: RuleCondition
) -> None:
    matched = [candidate for candidate in PAYMENTS if other.matches(candidate)]
    if condition.covers(other):
        assert all(condition.matches(candidate) for candidate in matched)
    elif matched:
        assert not all(condition.matches(candidate) for candidate in matched)


def configured(tmp_path: Path, text: str) -> str:
    """The faults of this routing.toml; empty if valid."""
    (tmp_path / "routing.toml").write_text(text, "utf-8")
    try:
        configuration({}, "cashier.toml", tmp_path)
    except ConfigurationError as fault:
        return "\n".join(fault.faults).replace(f"{tmp_path}/", "")
    return ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[learnin]\nhalf_life_s = 60", "routing.toml: unknown key 'learnin'; did you mean 'learning'?"),
        ("[learning]\nhalf_life = 60", "routing.toml: [learning] unknown key 'half_life'; did you mean 'half_life_s'?"),
        ("[sick]\nbelow_bps = 9_500", "routing.toml: [sick] below_bps: expected an integer ≤ 9000"),
        ('[[rule]]\nname = "a"\nprefr = ["x"]', "routing.toml: [rule[0]] unknown key 'prefr'; did you mean 'prefer'?"),
        (
            '[[rule]]\nname = "a"\nwhen = { kin = "CARD" }',
            "routing.toml: [rule[0].when] unknown key 'kin'; did you mean 'kind'?",
        ),
        (
            '[[rule]]\nname = "a"\nby = "luck"',
            "routing.toml: [rule[0]] by: 'luck' is not one of cost, success, balanced",
        ),
        (
            '[[rule]]\nname = "a"\nwhen = { kind = "KARD" }\n[[rule]]\nname = "b"',
            "routing.toml: [[rule]] \"a\": when.kind = 'KARD' is unknown",
        ),
        ("rule = []", "routing.toml: rule: expected a list of length ≥ 1"),
        ('[blame]\nchannel = ["DECLINED"]', "routing.toml: [blame] DECLINED is in both channel and others"),
        ('[codes]\nOTHER = ["28"]', "routing.toml: [codes] 28 belongs to two providers"),
    ],
)
def test_an_invalid_file_refuses_to_start_with_its_faults(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in configured(tmp_path, text)


def test_a_user_file_replaces_single_values(tmp_path: Path) -> None:
    (tmp_path / "routing.toml").write_text("[learning]\nhalf_life_s = 60\n", "utf-8")
    loaded = configuration({}, "cashier.toml", tmp_path).routing
    assert loaded.learning.half_life_s == 60
    assert (loaded.learning.prior_payments, loaded.rule) == (PACKAGED.learning.prior_payments, PACKAGED.rule)


def test_a_failure_is_attributed_by_its_code_and_an_unknown_code_counts_half() -> None:
    blame = FailureAttribution(channel=frozenset({"CHANNEL_ERROR"}), others=frozenset({"DECLINED"}))
    assert blame.outcome("CHANNEL_ERROR") is ChannelOutcome.FAILED
    assert blame.outcome("DECLINED") is None
    assert blame.outcome("SOMETHING_NEW") is ChannelOutcome.UNSURE


def test_a_codes_provider_is_found_by_its_prefix() -> None:
    assert [PACKAGED.provider_of(code) for code in ("2812", "1345", "6223", "99", "", "2")] == [
        "ALIPAY",
        "WECHAT_PAY",
        "UNIONPAY",
        None,
        None,
        None,
    ]
    narrower = Routing(rule=(REST,), codes={"A": ("28",), "B": ("281",)})
    assert [narrower.provider_of(code) for code in ("2810", "2820")] == ["B", "A"]
