"""The demonstration cases: by name, one sentence and a request for `POST /v1/consult`.

They serve demonstrations, tests and the README. A case that is blocked is named after its blockage.
"""

from __future__ import annotations

from typing import NamedTuple

from cashier.sandbox.records import Json, money


class DemoCase(NamedTuple):
    sentence: str
    request: Json


def _ask(order_id: str, amount: Json | None, **fields: str | None) -> Json:
    """A request of `u_1` at `m_1` in an app, changed by `fields`. Without amount: no claims.

    A field that is None is left out.
    """
    request: Json = {
        "order_id": order_id,
        "user_id": "u_1",
        "merchant_id": "m_1",
        "product": "STANDARD_CASHIER",
        "terminal": "APP",
    }
    claims = {"amount": amount, "country": "CN", "locale": "zh-CN"} if amount else {}
    return {name: value for name, value in (request | claims | fields).items() if value is not None}


def _cny(value: int) -> Json:
    return money("CNY", value)


CASES: dict[str, DemoCase] = {
    "chinese_shop": DemoCase(
        "CNY 128.00: one of five cards can pay, one is over its daily limit; a card can complete the balance.",
        _ask("o_1001", _cny(12_800)),
    ),
    "balance_is_enough": DemoCase("CNY 35.00, which the balance covers.", _ask("o_1002", _cny(3_500))),
    "nothing_claimed": DemoCase(
        "The same order by its id alone: sources that need the amount wait for the order.", _ask("o_1001", None)
    ),
    "on_a_computer": DemoCase(
        "The same order on a computer, which adds net banking.", _ask("o_1001", _cny(12_800), terminal="PC")
    ),
    "embedded_cashier": DemoCase(
        "An order that is paid inside the shop's own page.",
        _ask("o_1020", _cny(12_800), product="EMBEDDED_CASHIER"),
    ),
    "discounted_to_zero": DemoCase(
        "CNY 2.88 and a red packet of the same amount: nothing is left to pay.", _ask("o_1011", _cny(288))
    ),
    "nothing_to_pay": DemoCase("An order of 0: one method, and no instrument.", _ask("o_1030", _cny(0))),
    "in_instalments": DemoCase(
        "CNY 1,600.00 by 3, 6 or 12 instalments; with its fee, the longest is above the payer's credit line.",
        _ask("o_1031", _cny(160_000)),
    ),
    "above_every_limit": DemoCase(
        "CNY 88,000.00, above every limit but that of a new card.", _ask("o_1016", _cny(8_800_000))
    ),
    "without_cards": DemoCase(
        "A user unknown to card centre, marketing and quota.", _ask("o_1012", _cny(3_900), user_id="u_5")
    ),
    "unbound_and_terminated": DemoCase(
        "An unbound card, a terminated agreement, a frozen account.", _ask("o_1019", _cny(2_600), user_id="u_2")
    ),
    "low_kyc": DemoCase(
        "A user without identity verification (KYC level 0).", _ask("o_1013", _cny(15_000), user_id="u_6")
    ),
    "listed_by_risk": DemoCase(
        "The consultation offers methods, but risk rejects the payment.", _ask("o_1015", _cny(64_900), user_id="u_7")
    ),
    "guest_order": DemoCase("An order without a user: any user can pay it.", _ask("o_1017", _cny(4_500))),
    "scan_to_pay": DemoCase(
        "A till that shows a code and scans the payer's.",
        _ask("o_1014", _cny(2_800), merchant_id="m_2", product="SCAN", terminal="POS"),
    ),
    "walk_in": DemoCase(
        "A till and a payer who is no member, or does not say so.",
        _ask("o_1022", _cny(4_600), user_id=None, merchant_id="m_2", product="SCAN", terminal="POS"),
    ),
    "indonesian_shop": DemoCase(
        "IDR 250,000.00: virtual accounts, cash at a counter, wallets.",
        _ask("o_6201", money("IDR", 250_000_00), user_id="u_62", merchant_id="m_62", country="ID", locale="id-ID"),
    ),
    "below_the_counters_minimum": DemoCase(
        "IDR 5,000.00, below the minimum of banks and counters.",
        _ask("o_6202", money("IDR", 5_000_00), user_id="u_62", merchant_id="m_62", country="ID", locale="id-ID"),
    ),
    "japanese_shop": DemoCase(
        "JPY 4,980: cash at the konbini, PayPay, cards.",
        _ask("o_8101", money("JPY", 4_980), user_id="u_81", merchant_id="m_81", country="JP", locale="ja-JP"),
    ),
    "too_dear_for_the_konbini": DemoCase(
        "JPY 398,000, above the maximum of the konbini.",
        _ask("o_8102", money("JPY", 398_000), user_id="u_81", merchant_id="m_81", country="JP", locale="ja-JP"),
    ),
    "kuwaiti_shop": DemoCase(
        "KWD 12.750, three decimals: KNET and cards.",
        _ask("o_96501", money("KWD", 12_750), user_id="u_965", merchant_id="m_965", country="KW", locale="ar-KW"),
    ),
    "order_unknown": DemoCase("The acquirer does not know the order.", _ask("o_404", _cny(100))),
    "order_paid": DemoCase("The order was paid yesterday.", _ask("o_1003", _cny(9_900))),
    "order_closed": DemoCase("The shop has withdrawn the order.", _ask("o_1004", _cny(4_200))),
    "order_expired": DemoCase("The order expired an hour before the start.", _ask("o_1005", _cny(8_800))),
    "order_in_progress": DemoCase("Another attempt on the order is under way.", _ask("o_1006", _cny(6_600))),
    "amount_mismatch": DemoCase("The claimed amount differs from the order's.", _ask("o_1001", _cny(100))),
    "country_mismatch": DemoCase(
        "The claimed country differs from the order's.", _ask("o_1001", _cny(12_800), country="JP")
    ),
    "product_mismatch": DemoCase(
        "The order is for another product than the one named.",
        _ask("o_1001", _cny(12_800), product="EMBEDDED_CASHIER"),
    ),
    "order_merchant_mismatch": DemoCase(
        "The order belongs to another merchant.", _ask("o_1001", _cny(12_800), merchant_id="m_2")
    ),
    "order_user_mismatch": DemoCase("The order belongs to another user.", _ask("o_1001", _cny(12_800), user_id="u_2")),
    "user_unknown": DemoCase(
        "A guest order and a user unknown to the member service.", _ask("o_1017", _cny(4_500), user_id="u_404")
    ),
    "user_frozen": DemoCase("The user is frozen.", _ask("o_1007", _cny(5_000), user_id="u_3")),
    "user_closed": DemoCase("The user's account is closed.", _ask("o_1008", _cny(5_000), user_id="u_4")),
    "merchant_unknown": DemoCase(
        "The merchant service does not know the order's merchant.", _ask("o_1018", _cny(1_000), merchant_id="m_404")
    ),
    "merchant_suspended": DemoCase("The merchant is suspended.", _ask("o_1009", _cny(7_700), merchant_id="m_3")),
    "product_not_contracted": DemoCase(
        "A merchant with a contract for scan-to-pay only.", _ask("o_1010", _cny(2_300), merchant_id="m_4")
    ),
}
