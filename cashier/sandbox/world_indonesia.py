"""Indonesia: virtual accounts, cash at store chains, wallets. Values are in sen.

25000000 is IDR 250,000.00.
"""

from __future__ import annotations

from datetime import timedelta

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


def idr(value: int) -> Json:
    """`value` in sen."""
    return money("IDR", value)


THROUGH_BANKS = (idr(1_000_000), idr(50_000_000_00))
OVER_THE_COUNTER = (idr(1_000_000), idr(2_500_000_00))
IN_WALLETS = (idr(100_00), idr(10_000_000_00))

CHANNELS = (
    channel(
        "ch_va_bca",
        "VA",
        "BCA",
        "Bank Central Asia",
        THROUGH_BANKS,
        cost_bps=0,
        fixed_cost=idr(400_000),
        terminals=EVERYWHERE,
    ),
    channel(
        "ch_va_mandiri",
        "VA",
        "MANDIRI",
        "Bank Mandiri",
        THROUGH_BANKS,
        cost_bps=0,
        fixed_cost=idr(400_000),
        terminals=EVERYWHERE,
    ),
    channel(
        "ch_va_bni",
        "VA",
        "BNI",
        "Bank Negara Indonesia",
        THROUGH_BANKS,
        cost_bps=0,
        fixed_cost=idr(350_000),
        terminals=EVERYWHERE,
    ),
    channel(
        "ch_va_bri",
        "VA",
        "BRI",
        "Bank Rakyat Indonesia",
        THROUGH_BANKS,
        cost_bps=0,
        fixed_cost=idr(350_000),
        terminals=EVERYWHERE,
        status="MAINTENANCE",
        until=timedelta(hours=2),
    ),
    channel(
        "ch_va_permata",
        "VA",
        "PERMATA",
        "Bank Permata",
        THROUGH_BANKS,
        cost_bps=0,
        fixed_cost=idr(380_000),
        success_bps=9_700,
    ),
    channel(
        "ch_otc_alfamart",
        "OTC",
        "ALFAMART",
        "Alfamart",
        OVER_THE_COUNTER,
        cost_bps=0,
        fixed_cost=idr(500_000),
        fee_bps=100,
    ),
    channel(
        "ch_otc_indomaret",
        "OTC",
        "INDOMARET",
        "Indomaret",
        OVER_THE_COUNTER,
        cost_bps=0,
        fixed_cost=idr(650_000),
        fee_bps=100,
    ),
    channel("ch_wallet_gopay", "WALLET", "GOPAY", "GoPay", IN_WALLETS, cost_bps=200, success_bps=9_850),
    channel("ch_wallet_ovo", "WALLET", "OVO", "OVO", IN_WALLETS, cost_bps=150, success_bps=9_700),
    channel("ch_wallet_dana", "WALLET", "DANA", "DANA", IN_WALLETS, cost_bps=150, success_bps=9_800),
    channel("ch_wallet_linkaja", "WALLET", "LINKAJA", "LinkAja", IN_WALLETS, cost_bps=150, success_bps=7_900),
    channel(
        "ch_wallet_shopeepay",
        "WALLET",
        "SHOPEEPAY",
        "ShopeePay",
        IN_WALLETS,
        cost_bps=180,
        success_bps=9_820,
        terminals=("APP", "H5"),
    ),
    channel(
        "ch_card_midtrans",
        "CARD",
        "MIDTRANS",
        "Midtrans",
        THROUGH_BANKS,
        cost_bps=290,
        fixed_cost=idr(200_000),
        success_bps=8_900,
        brands=("VISA", "MASTERCARD", "GPN"),
        card_types=("DEBIT", "CREDIT"),
    ),
    channel(
        "ch_mqr_qris",
        "MERCHANT_QR",
        "QRIS",
        "QRIS",
        IN_WALLETS,
        cost_bps=70,
        terminals=("POS", "PC"),
        products=("SCAN",),
    ),
)

TRAVELLER = SimulatedUser(
    member=member(
        "u_62",
        country="ID",
        usage={"WALLET": 12, "VA": 5, "OTC": 2},
        kyc_level=2,
        last_used=("WALLET", "ch_wallet_gopay"),
    ),
    cards=[card("c_621", "BCA", "Bank Central Asia", "CREDIT", "MASTERCARD", "5471", "2030-09")],
    accounts=[account("acc_621", "BALANCE", idr(180_000_00))],
    promotions=[
        promotion(
            "p_621",
            "INSTANT_DISCOUNT",
            "10 % off with wallets, at most 30,000",
            idr(100_000_00),
            group="wallet",
            kinds=("WALLET",),
            percent_off_bps=1_000,
            cap=idr(30_000_00),
        ),
        promotion("p_622", "COUPON", "15,000 off 200,000", idr(200_000_00), group="coupon", amount_off=idr(15_000_00)),
    ],
    boosts=(boost("WALLET", 250, "Payday"),),
    quotas=[
        quota(
            {"kind": "WALLET"},
            daily=(idr(10_000_000_00), idr(1_450_000_00)),
            monthly=(idr(20_000_000_00), idr(6_100_000_00)),
        ),
        quota({"kind": "OTC"}, single=idr(2_500_000_00), daily=(idr(5_000_000_00), idr(0))),
    ],
)

INDONESIA = Country(
    code="ID",
    utc_offset_h=7,
    merchants=(
        merchant(
            "m_62",
            "Warung Kopi Nusantara",
            country="ID",
            mcc="5499",
            products=("STANDARD_CASHIER", "EMBEDDED_CASHIER"),
            kinds=("VA", "OTC", "WALLET", "CARD", "BALANCE"),
        ),
    ),
    users=(TRAVELLER,),
    orders=(
        order("o_6201", "m_62", "u_62", idr(250_000_00), "Two kilos of Gayo beans", country="ID", category="groceries"),
        order(
            "o_6202",
            "m_62",
            "u_62",
            idr(5_000_00),
            "A paper filter, too little for a counter",
            country="ID",
            category="groceries",
        ),
    ),
    channels=CHANNELS,
)
