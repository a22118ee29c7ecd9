"""Kuwait: KNET net banking and cards. The dinar has three decimals: 12750 is KWD 12.750."""

from __future__ import annotations

from cashier.sandbox.record_builders import (
    Country,
    Json,
    SimulatedUser,
    card,
    channel,
    member,
    merchant,
    money,
    order,
    promotion,
    quota,
)


def kwd(value: int) -> Json:
    """`value` in fils."""
    return money("KWD", value)


THROUGH_KNET = (kwd(100), kwd(5_000_000))
ON_CARDS = (kwd(250), kwd(10_000_000))

CHANNELS = (
    channel(
        "ch_net_nbk", "NET_BANKING", "NBK", "National Bank of Kuwait", THROUGH_KNET, cost_bps=0, fixed_cost=kwd(150)
    ),
    channel("ch_net_kfh", "NET_BANKING", "KFH", "Kuwait Finance House", THROUGH_KNET, cost_bps=0, fixed_cost=kwd(150)),
    channel(
        "ch_net_gulf",
        "NET_BANKING",
        "GULF_BANK",
        "Gulf Bank",
        THROUGH_KNET,
        cost_bps=0,
        fixed_cost=kwd(150),
        success_bps=8_400,
    ),
    channel(
        "ch_quick_nbk",
        "QUICK_PAY",
        "NBK",
        "National Bank of Kuwait",
        THROUGH_KNET,
        cost_bps=90,
        brands=("KNET", "VISA"),
        card_types=("DEBIT", "CREDIT"),
    ),
    channel(
        "ch_card_tap",
        "CARD",
        "TAP",
        "Tap Payments",
        ON_CARDS,
        cost_bps=250,
        fee_bps=125,
        success_bps=9_200,
        brands=("VISA", "MASTERCARD", "AMEX"),
        card_types=("CREDIT",),
    ),
    channel(
        "ch_card_checkout",
        "CARD",
        "CHECKOUT",
        "Checkout.com",
        ON_CARDS,
        cost_bps=230,
        fee_bps=125,
        success_bps=9_350,
        brands=("VISA", "MASTERCARD"),
        card_types=("CREDIT", "DEBIT"),
    ),
    channel(
        "ch_wallet_bookeey", "WALLET", "BOOKEEY", "Bookeey", (kwd(100), kwd(1_000_000)), cost_bps=110, success_bps=9_650
    ),
)

SAILOR = SimulatedUser(
    member=member(
        "u_965", country="KW", usage={"NET_BANKING": 7, "QUICK_PAY": 1}, last_used=("NET_BANKING", "ch_net_nbk")
    ),
    cards=[card("c_9651", "NBK", "National Bank of Kuwait", "DEBIT", "KNET", "8888", "2031-10")],
    accounts=[],
    promotions=[
        # A rate that is not a whole number of fils: 2.5 % of 12.750 is 0.31875.
        promotion(
            "p_9651",
            "INSTANT_DISCOUNT",
            "2.5 % off, at most 1 dinar",
            kwd(5_000),
            group="launch",
            percent_off_bps=250,
            cap=kwd(1_000),
        ),
    ],
    quotas=[quota({"kind": "NET_BANKING"}, single=kwd(3_000_000), daily=(kwd(6_000_000), kwd(40_250)))],
)

KUWAIT = Country(
    code="KW",
    utc_offset_h=3,
    merchants=(
        merchant(
            "m_965",
            "Dhow Chandlery",
            country="KW",
            mcc="5551",
            products=("STANDARD_CASHIER",),
            kinds=("NET_BANKING", "CARD", "QUICK_PAY", "WALLET", "BALANCE"),
        ),
    ),
    users=(SAILOR,),
    orders=(order("o_96501", "m_965", "u_965", kwd(12_750), "Forty metres of rope", country="KW", category="marine"),),
    channels=CHANNELS,
)
