"""China: one payer with something of everything, the shops, and an order or user per refusal.

`u_1` pays `o_1001` at `m_1`, as in the contract's examples. Values are in fen: 12800 is CNY 128.00.
"""

from __future__ import annotations

from datetime import timedelta

from cashier.sandbox.channels_china import CHANNELS, cny
from cashier.sandbox.record_builders import (
    Country,
    SimulatedUser,
    account,
    agreement,
    boost,
    card,
    member,
    merchant,
    order,
    promotion,
    quota,
)

ONLINE = ("STANDARD_CASHIER", "EMBEDDED_CASHIER")
ONLINE_KINDS = ("QUICK_PAY", "AGREEMENT", "CARD", "NET_BANKING", "WALLET", "BALANCE")

MERCHANTS = (
    merchant("m_1", "云杉书店 Spruce Books", country="CN", mcc="5942", products=ONLINE, kinds=ONLINE_KINDS),
    merchant(
        "m_2",
        "街角咖啡 Corner Coffee",
        country="CN",
        mcc="5814",
        products=("SCAN", "STANDARD_CASHIER"),
        kinds=("MERCHANT_QR", "CONSUMER_QR", "BALANCE", "QUICK_PAY"),
    ),
    merchant(
        "m_3",
        "停业商店 Shuttered Shop",
        country="CN",
        mcc="5999",
        products=ONLINE,
        kinds=ONLINE_KINDS,
        status="SUSPENDED",
    ),
    merchant(
        "m_4", "菜市场 Market Stall", country="CN", mcc="5411", products=("SCAN",), kinds=("MERCHANT_QR", "CONSUMER_QR")
    ),
)

READER = SimulatedUser(
    member=member(
        "u_1",
        country="CN",
        usage={"QUICK_PAY": 41, "WALLET": 17, "BALANCE": 9, "AGREEMENT": 4},
        last_used=("QUICK_PAY", "c_2"),
    ),
    cards=[
        card("c_1", "ICBC", "ICBC", "DEBIT", "UNIONPAY", "6222", "2030-11"),
        card("c_2", "CMB", "CMB Bank", "CREDIT", "UNIONPAY", "1014", "2031-05"),
        card("c_3", "CCB", "China Construction Bank", "CREDIT", "VISA", "4367", "2024-03"),
        card("c_4", "ABC", "Agricultural Bank of China", "DEBIT", "UNIONPAY", "9559", "2032-08", status="FROZEN"),
        card("c_5", "BOC", "Bank of China", "DEBIT", "UNIONPAY", "4563", "2033-01"),
    ],
    agreements=(agreement("ag_1", "m_1", "ch_agreement_unionpay", single_max=cny(500_000)),),
    # 100.00: a card must complete o_1001 (128.00); enough for o_1002 (35.00).
    accounts=[
        account("acc_1", "BALANCE", cny(10_000)),
        account("acc_2", "MONEY_FUND", cny(1_250_000)),
        account("acc_3", "GIFT", cny(20_000), status="FROZEN"),
    ],
    promotions=[
        promotion(
            "p_1",
            "COUPON",
            "10 off 100",
            cny(10_000),
            group="coupon",
            amount_off=cny(1_000),
            expires_at=timedelta(days=7),
        ),
        promotion(
            "p_2",
            "INSTANT_DISCOUNT",
            "5 % off with CMB credit cards, at most 20",
            cny(5_000),
            group="bank",
            kinds=("QUICK_PAY",),
            banks=("CMB",),
            percent_off_bps=500,
            cap=cny(2_000),
        ),
        promotion(
            "p_3",
            "RED_PACKET",
            "Red packet of 2.88",
            cny(0),
            group="red_packet",
            amount_off=cny(288),
            expires_at=timedelta(days=2),
        ),
        promotion(
            "p_4",
            "FULL_REDUCTION",
            "15 off 120, not with others",
            cny(12_000),
            group="shop",
            stackable=False,
            amount_off=cny(1_500),
        ),
        promotion(
            "p_5",
            "COUPON",
            "20 off 100, last week's",
            cny(10_000),
            group="coupon",
            amount_off=cny(2_000),
            expires_at=timedelta(days=-3),
        ),
    ],
    boosts=(boost("QUICK_PAY", 300, "Bank week"), boost("WALLET", 100, "Wallet of the month")),
    quotas=[
        quota(
            {"kind": "QUICK_PAY", "bank": "CMB"},
            single=cny(2_000_000),
            daily=(cny(5_000_000), cny(120_000)),
            monthly=(cny(20_000_000), cny(900_000)),
        ),
        # 50.00 is left today on this card: too little for o_1001, enough for o_1002.
        quota({"kind": "QUICK_PAY", "card_id": "c_1"}, single=cny(1_000_000), daily=(cny(1_000_000), cny(995_000))),
        quota({"kind": "QUICK_PAY"}, single=cny(5_000_000), monthly=(cny(50_000_000), cny(2_310_000))),
        quota({"kind": "BALANCE"}, single=cny(1_000_000), daily=(cny(2_000_000), cny(31_000))),
        quota({"kind": "AGREEMENT", "channel_id": "ch_agreement_unionpay"}, daily=(cny(1_000_000), cny(0))),
        quota({"kind": "WALLET"}, single=cny(5_000_000)),
    ],
)

USERS = (
    READER,
    SimulatedUser(
        member=member("u_2", country="CN", usage={"WALLET": 3}),
        cards=[
            card("c_21", "COMM", "Bank of Communications", "DEBIT", "UNIONPAY", "6222", "2031-02", status="UNBOUND")
        ],
        agreements=(agreement("ag_2", "m_1", "ch_agreement_unionpay", status="TERMINATED"),),
        accounts=[account("acc_21", "BALANCE", cny(1_200), status="FROZEN")],
        promotions=[],
        quotas=[],
    ),
    SimulatedUser(
        member=member("u_3", country="CN", usage={}, status="FROZEN"),
        accounts=[account("acc_31", "BALANCE", cny(900_000))],
    ),
    SimulatedUser(member=member("u_4", country="CN", usage={}, status="CLOSED")),
    SimulatedUser(
        member=member("u_5", country="CN", usage={"WALLET": 6}), accounts=[account("acc_51", "BALANCE", cny(4_000))]
    ),
    SimulatedUser(
        member=member("u_6", country="CN", usage={}, kyc_level=0),
        cards=[card("c_61", "CMB", "CMB Bank", "DEBIT", "UNIONPAY", "2077", "2030-04")],
        accounts=[account("acc_61", "BALANCE", cny(50_000))],
    ),
    SimulatedUser(
        member=member("u_7", country="CN", usage={"QUICK_PAY": 210}, last_used=("QUICK_PAY", "c_71")),
        cards=[card("c_71", "ICBC", "ICBC", "DEBIT", "UNIONPAY", "7013", "2029-12")],
    ),
)

ORDERS = (
    order("o_1001", "m_1", "u_1", cny(12_800), "Three novels and a reading lamp", country="CN", category="books"),
    order("o_1002", "m_1", "u_1", cny(3_500), "One novel", country="CN", category="books"),
    order(
        "o_1003",
        "m_1",
        "u_1",
        cny(9_900),
        "An atlas, paid yesterday",
        country="CN",
        category="books",
        status="PAID",
        payment_id="pay_o_1003",
        paid=cny(9_900),
    ),
    order(
        "o_1004",
        "m_1",
        "u_1",
        cny(4_200),
        "A notebook, order withdrawn",
        country="CN",
        category="stationery",
        status="CLOSED",
        closed_reason="CLOSED_BY_MERCHANT",
    ),
    order(
        "o_1005",
        "m_1",
        "u_1",
        cny(8_800),
        "A calendar, order of last night",
        country="CN",
        category="stationery",
        expires_at=timedelta(hours=-1),
    ),
    order(
        "o_1006",
        "m_1",
        "u_1",
        cny(6_600),
        "A fountain pen, being paid elsewhere",
        country="CN",
        category="stationery",
        status="PAYING",
        payment_id="pay_o_1006",
    ),
    order("o_1007", "m_1", "u_3", cny(5_000), "A dictionary", country="CN", category="books"),
    order("o_1008", "m_1", "u_4", cny(5_000), "A dictionary", country="CN", category="books"),
    order("o_1009", "m_3", "u_1", cny(7_700), "An umbrella", country="CN", category="household"),
    order("o_1010", "m_4", "u_1", cny(2_300), "Vegetables", country="CN", category="groceries"),
    order("o_1011", "m_1", "u_1", cny(288), "A bookmark", country="CN", category="stationery"),
    order("o_1012", "m_1", "u_5", cny(3_900), "A picture book", country="CN", category="books"),
    order("o_1013", "m_1", "u_6", cny(15_000), "A chess set", country="CN", category="games"),
    order("o_1014", "m_2", None, cny(2_800), "Two coffees", country="CN", category="food", product="SCAN"),
    order("o_1015", "m_1", "u_7", cny(64_900), "A gift card", country="CN", category="gift_cards"),
    order("o_1016", "m_1", "u_1", cny(8_800_000), "A first edition", country="CN", category="books"),
    order("o_1017", "m_1", None, cny(4_500), "A magazine, ordered as a guest", country="CN", category="books"),
    order(
        "o_1018", "m_404", "u_1", cny(1_000), "Goods of a shop that no longer exists", country="CN", category="other"
    ),
    order("o_1019", "m_1", "u_2", cny(2_600), "A comic", country="CN", category="books"),
)

CHINA = Country(code="CN", utc_offset_h=8, merchants=MERCHANTS, users=USERS, orders=ORDERS, channels=CHANNELS)
