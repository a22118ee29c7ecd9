"""The 24 channels for CNY in China: one closed, one in maintenance for 3 h, one that fails often.

Minimum and maximum of each are in fen. The provider of a quick-pay channel is the bank's code.
"""

from __future__ import annotations

from datetime import timedelta

from cashier.sandbox.record_builders import Json, channel, money


def cny(value: int) -> Json:
    """`value` in fen."""
    return money("CNY", value)


FROM_A_FEN_TO_50_000 = (cny(1), cny(5_000_000))
FROM_A_YUAN_TO_200_000 = (cny(100), cny(20_000_000))
SMALL_TICKETS = (cny(1), cny(300_000))

BOTH_TYPES = ("DEBIT", "CREDIT")
AT_A_SCREEN = ("POS", "PC")

QUICK_PAY = (
    channel(
        "ch_quick_icbc",
        "QUICK_PAY",
        "ICBC",
        "ICBC",
        FROM_A_FEN_TO_50_000,
        cost_bps=25,
        success_bps=9_930,
        brands=("UNIONPAY",),
        card_types=BOTH_TYPES,
    ),
    channel(
        "ch_quick_cmb",
        "QUICK_PAY",
        "CMB",
        "CMB Bank",
        FROM_A_FEN_TO_50_000,
        cost_bps=28,
        success_bps=9_950,
        brands=("UNIONPAY",),
        card_types=BOTH_TYPES,
    ),
    channel(
        "ch_quick_ccb",
        "QUICK_PAY",
        "CCB",
        "China Construction Bank",
        FROM_A_FEN_TO_50_000,
        cost_bps=26,
        success_bps=9_890,
        brands=("UNIONPAY", "VISA"),
        card_types=BOTH_TYPES,
    ),
    channel(
        "ch_quick_abc",
        "QUICK_PAY",
        "ABC",
        "Agricultural Bank of China",
        FROM_A_FEN_TO_50_000,
        cost_bps=24,
        success_bps=9_860,
        brands=("UNIONPAY",),
        card_types=BOTH_TYPES,
    ),
    channel(
        "ch_quick_boc",
        "QUICK_PAY",
        "BOC",
        "Bank of China",
        FROM_A_FEN_TO_50_000,
        cost_bps=25,
        status="MAINTENANCE",
        until=timedelta(hours=3),
        brands=("UNIONPAY",),
        card_types=BOTH_TYPES,
    ),
    channel(
        "ch_quick_comm",
        "QUICK_PAY",
        "COMM",
        "Bank of Communications",
        FROM_A_FEN_TO_50_000,
        cost_bps=27,
        success_bps=9_910,
        brands=("UNIONPAY",),
        card_types=("DEBIT",),
    ),
)

AGREEMENT_AND_CARD = (
    channel(
        "ch_agreement_unionpay",
        "AGREEMENT",
        "UNIONPAY",
        "UnionPay",
        FROM_A_FEN_TO_50_000,
        cost_bps=22,
        fixed_cost=cny(10),
    ),
    channel(
        "ch_card_worldpay",
        "CARD",
        "WORLDPAY",
        "Worldpay",
        FROM_A_YUAN_TO_200_000,
        cost_bps=180,
        success_bps=9_300,
        fee_bps=100,
        brands=("VISA", "MASTERCARD"),
        card_types=("CREDIT",),
    ),
    channel(
        "ch_card_adyen",
        "CARD",
        "ADYEN",
        "Adyen",
        FROM_A_YUAN_TO_200_000,
        cost_bps=160,
        success_bps=9_450,
        fee_bps=100,
        fixed_cost=cny(80),
        brands=("VISA", "MASTERCARD", "JCB"),
        card_types=BOTH_TYPES,
    ),
)

NET_BANKING = (
    channel(
        "ch_net_icbc",
        "NET_BANKING",
        "ICBC",
        "ICBC",
        FROM_A_YUAN_TO_200_000,
        cost_bps=15,
        terminals=("PC",),
    ),
    channel(
        "ch_net_cmb", "NET_BANKING", "CMB", "CMB Bank", FROM_A_YUAN_TO_200_000, cost_bps=16, terminals=("PC", "H5")
    ),
    channel(
        "ch_net_ccb",
        "NET_BANKING",
        "CCB",
        "China Construction Bank",
        FROM_A_YUAN_TO_200_000,
        cost_bps=15,
        terminals=("PC",),
    ),
    channel(
        "ch_net_boc",
        "NET_BANKING",
        "BOC",
        "Bank of China",
        FROM_A_YUAN_TO_200_000,
        cost_bps=15,
        terminals=("PC",),
        status="CLOSED",
    ),
)

WALLETS = (
    channel("ch_wallet_alipay", "WALLET", "ALIPAY", "Alipay", FROM_A_FEN_TO_50_000, cost_bps=55, success_bps=9_970),
    channel(
        "ch_wallet_wechat", "WALLET", "WECHAT_PAY", "WeChat Pay", FROM_A_FEN_TO_50_000, cost_bps=60, success_bps=9_970
    ),
    channel(
        "ch_wallet_unionpay",
        "WALLET",
        "UNIONPAY",
        "UnionPay Cloud QuickPass",
        FROM_A_FEN_TO_50_000,
        cost_bps=38,
        success_bps=9_880,
    ),
    channel(
        "ch_wallet_jd",
        "WALLET",
        "JD_PAY",
        "JD Pay",
        FROM_A_FEN_TO_50_000,
        cost_bps=50,
        success_bps=9_820,
        terminals=("APP", "H5", "PC"),
    ),
    channel(
        "ch_wallet_meituan",
        "WALLET",
        "MEITUAN_PAY",
        "Meituan Pay",
        SMALL_TICKETS,
        cost_bps=45,
        success_bps=6_100,
        terminals=("APP", "H5"),
    ),
)

CODES = (
    channel(
        "ch_mqr_alipay",
        "MERCHANT_QR",
        "ALIPAY",
        "Alipay",
        SMALL_TICKETS,
        cost_bps=38,
        terminals=AT_A_SCREEN,
        products=("SCAN",),
    ),
    channel(
        "ch_mqr_wechat",
        "MERCHANT_QR",
        "WECHAT_PAY",
        "WeChat Pay",
        SMALL_TICKETS,
        cost_bps=38,
        terminals=AT_A_SCREEN,
        products=("SCAN",),
    ),
    channel(
        "ch_mqr_unionpay",
        "MERCHANT_QR",
        "UNIONPAY",
        "UnionPay",
        SMALL_TICKETS,
        cost_bps=30,
        terminals=AT_A_SCREEN,
        products=("SCAN",),
    ),
    channel(
        "ch_cqr_alipay",
        "CONSUMER_QR",
        "ALIPAY",
        "Alipay",
        SMALL_TICKETS,
        cost_bps=38,
        terminals=("POS",),
        products=("SCAN",),
    ),
    channel(
        "ch_cqr_wechat",
        "CONSUMER_QR",
        "WECHAT_PAY",
        "WeChat Pay",
        SMALL_TICKETS,
        cost_bps=38,
        terminals=("POS",),
        products=("SCAN",),
    ),
    channel(
        "ch_cqr_unionpay",
        "CONSUMER_QR",
        "UNIONPAY",
        "UnionPay",
        SMALL_TICKETS,
        cost_bps=30,
        terminals=("POS",),
        products=("SCAN",),
    ),
)

CHANNELS = (*QUICK_PAY, *AGREEMENT_AND_CARD, *NET_BANKING, *WALLETS, *CODES)
