"""Japan: cash at the konbini, wallets, cards. The yen has no minor unit: 4980 is JPY 4,980."""

from __future__ import annotations

from cashier.sandbox.record_builders import (
    EVERYWHERE,
    Country,
    Json,
    SimulatedUser,
    account,
    boost,
    card,
    channel,
    member,
    merchant,
    money,
    order,
    promotion,
    quota,
)


def jpy(value: int) -> Json:
    """`value` in yen."""
    return money("JPY", value)


AT_THE_TILL = (jpy(200), jpy(300_000))
IN_WALLETS = (jpy(1), jpy(500_000))
ON_CARDS = (jpy(50), jpy(9_999_999))

CHANNELS = (
    channel(
        "ch_otc_seven",
        "OTC",
        "SEVEN_ELEVEN",
        "7-Eleven",
        AT_THE_TILL,
        cost_bps=0,
        fixed_cost=jpy(190),
        terminals=EVERYWHERE,
    ),
    channel(
        "ch_otc_lawson", "OTC", "LAWSON", "Lawson", AT_THE_TILL, cost_bps=0, fixed_cost=jpy(190), terminals=EVERYWHERE
    ),
    channel(
        "ch_otc_familymart",
        "OTC",
        "FAMILYMART",
        "FamilyMart",
        AT_THE_TILL,
        cost_bps=0,
        fixed_cost=jpy(190),
        terminals=EVERYWHERE,
    ),
    channel(
        "ch_otc_ministop", "OTC", "MINISTOP", "Ministop", AT_THE_TILL, cost_bps=0, fixed_cost=jpy(190), status="CLOSED"
    ),
    channel("ch_wallet_paypay", "WALLET", "PAYPAY", "PayPay", IN_WALLETS, cost_bps=198, success_bps=9_900),
    channel("ch_wallet_rakuten", "WALLET", "RAKUTEN_PAY", "Rakuten Pay", IN_WALLETS, cost_bps=324, success_bps=9_750),
    channel(
        "ch_wallet_line",
        "WALLET",
        "LINE_PAY",
        "LINE Pay",
        IN_WALLETS,
        cost_bps=245,
        success_bps=9_600,
        terminals=("APP", "H5"),
    ),
    channel(
        "ch_quick_jcb",
        "QUICK_PAY",
        "JCB",
        "JCB",
        ON_CARDS,
        cost_bps=280,
        success_bps=9_800,
        brands=("JCB",),
        card_types=("CREDIT",),
    ),
    channel(
        "ch_quick_smbc",
        "QUICK_PAY",
        "SMBC",
        "Sumitomo Mitsui Banking",
        ON_CARDS,
        cost_bps=300,
        success_bps=9_780,
        brands=("VISA", "MASTERCARD"),
        card_types=("CREDIT", "DEBIT"),
    ),
    channel(
        "ch_card_gmo",
        "CARD",
        "GMO",
        "GMO Payment Gateway",
        ON_CARDS,
        cost_bps=320,
        success_bps=9_500,
        brands=("VISA", "MASTERCARD", "JCB", "AMEX"),
        card_types=("CREDIT",),
    ),
)

GARDENER = SimulatedUser(
    member=member(
        "u_81", country="JP", usage={"OTC": 8, "WALLET": 6, "QUICK_PAY": 2}, last_used=("OTC", "ch_otc_lawson")
    ),
    cards=[
        card("c_811", "SMBC", "Sumitomo Mitsui Banking", "CREDIT", "VISA", "4980", "2030-02"),
        card("c_812", "JCB", "JCB", "CREDIT", "JCB", "3540", "2029-07"),
    ],
    accounts=[account("acc_811", "BALANCE", jpy(1_500)), account("acc_812", "GIFT", jpy(500))],
    promotions=[
        promotion("p_811", "COUPON", "500 yen off 4,000", jpy(4_000), group="coupon", amount_off=jpy(500)),
        promotion(
            "p_812",
            "INSTANT_DISCOUNT",
            "3 % back with PayPay and its like, at most 1,000 yen",
            jpy(1_000),
            group="wallet",
            kinds=("WALLET",),
            percent_off_bps=300,
            cap=jpy(1_000),
        ),
    ],
    boosts=(boost("WALLET", 150, "Cashless week"),),
    quotas=[
        quota({"kind": "WALLET"}, daily=(jpy(500_000), jpy(12_300)), monthly=(jpy(2_000_000), jpy(148_000))),
        quota({"kind": "OTC"}, single=jpy(300_000)),
    ],
)

JAPAN = Country(
    code="JP",
    utc_offset_h=9,
    merchants=(
        merchant(
            "m_81",
            "緑の園芸店 Green Garden",
            country="JP",
            mcc="5261",
            products=("STANDARD_CASHIER", "EMBEDDED_CASHIER"),
            kinds=("OTC", "WALLET", "CARD", "QUICK_PAY", "BALANCE"),
        ),
    ),
    users=(GARDENER,),
    orders=(
        order("o_8101", "m_81", "u_81", jpy(4_980), "A camellia and a watering can", country="JP", category="garden"),
        order(
            "o_8102",
            "m_81",
            "u_81",
            jpy(398_000),
            "A garden shed, too dear for the till",
            country="JP",
            category="garden",
        ),
    ),
    channels=CHANNELS,
)
