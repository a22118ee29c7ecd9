"""Users, orders and merchants generated on demand: `u_<n>`, `o_<n>`, `m_<n>`, n from 100000.

Nothing is stored. Load generators can rely on these rules: order `o_<n>` belongs to user `u_<n>`
and merchant `m_<100000 + n % 8>`, is in CNY in China for STANDARD_CASHIER and expires a day after
the start. The user is active and has five cards, one agreement with that merchant, two accounts,
five promotions and six quotas. Amounts, banks, balances and used quotas vary with n and the seed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from cashier.sandbox.channels_china import cny
from cashier.sandbox.record_builders import (
    Json,
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
    resolve_times,
)

FIRST_NUMBER = 100_000
MERCHANT_COUNT = 8

BANKS = (
    ("ICBC", "ICBC"),
    ("CMB", "CMB Bank"),
    ("CCB", "China Construction Bank"),
    ("ABC", "Agricultural Bank of China"),
    ("BOC", "Bank of China"),
    ("COMM", "Bank of Communications"),
)
GOODS = (
    ("A novel", "books"),
    ("Headphones", "electronics"),
    ("Running shoes", "sports"),
    ("Tea for a month", "groceries"),
    ("A tent", "outdoor"),
)
KINDS = ("QUICK_PAY", "AGREEMENT", "CARD", "NET_BANKING", "WALLET", "BALANCE", "MERCHANT_QR", "CONSUMER_QR")

# At most 12 digits, so that n fits in the 64 bits of the random state.
_NUMBERED = re.compile(r"[uom]_([1-9][0-9]{5,11})")
_WORD = 2**64

Item = TypeVar("Item")


def parse_number(identity: str) -> int | None:
    """The n of `u_<n>`, `o_<n>` or `m_<n>`; None for any other id."""
    match = _NUMBERED.fullmatch(identity)
    return int(match[1]) if match else None


class GeneratedUsers:
    """Generates the user, order or merchant of a number, deterministically from seed and start."""

    def __init__(self, seed: int, start: datetime) -> None:
        self._seed = seed
        self._tomorrow: str = resolve_times(timedelta(hours=24), start, 8)
        self._next_week: str = resolve_times(timedelta(days=7), start, 8)

    def __repr__(self) -> str:
        return f"GeneratedUsers(seed={self._seed})"

    def consult_request(self, n: int) -> Json:
        """The consultation request for order `o_<n>`, claims included."""
        return {
            "order_id": f"o_{n}",
            "user_id": f"u_{n}",
            "merchant_id": _merchant_of(n),
            "amount": self._amount(n),
            "product": "STANDARD_CASHIER",
            "terminal": "APP",
            "country": "CN",
            "locale": "zh-CN",
        }

    def order(self, n: int) -> Json:
        title, category = _RandomSequence(self._seed, n, 1).choose(GOODS)
        return order(
            f"o_{n}",
            _merchant_of(n),
            f"u_{n}",
            self._amount(n),
            title,
            country="CN",
            category=category,
            expires_at=self._tomorrow,
        )

    def merchant(self, n: int) -> Json:
        return merchant(
            f"m_{n}",
            f"Shop {n}",
            country="CN",
            mcc="5999",
            products=("STANDARD_CASHIER", "EMBEDDED_CASHIER", "SCAN"),
            kinds=KINDS,
        )

    def user(self, n: int) -> SimulatedUser:
        """Each part has its own random sequence, so that a change of one keeps the others."""
        return SimulatedUser(
            member=self._member(n),
            cards=self._cards(n),
            agreements=(agreement(f"ag_{n}", _merchant_of(n), "ch_agreement_unionpay", single_max=cny(1_000_000)),),
            accounts=self._accounts(n),
            promotions=self._promotions(n),
            boosts=(boost("QUICK_PAY", 300, "Bank week"),),
            quotas=self._quotas(n),
        )

    def _amount(self, n: int) -> Json:
        return cny(_RandomSequence(self._seed, n, 2).between(500, 80_000))

    def _member(self, n: int) -> Json:
        random = _RandomSequence(self._seed, n, 3)
        usage = {"QUICK_PAY": random.between(0, 90), "WALLET": random.between(0, 60), "BALANCE": random.between(0, 30)}
        return member(
            f"u_{n}",
            country="CN",
            usage=usage,
            kyc_level=random.between(2, 3),
            last_used=("QUICK_PAY", f"c_{n}_{random.between(1, 5)}"),
        )

    def _cards(self, n: int) -> list[Json]:
        random = _RandomSequence(self._seed, n, 4)
        first = random.between(0, len(BANKS) - 1)
        return [self._card(random, n, position, BANKS[(first + position) % len(BANKS)]) for position in range(1, 6)]

    def _card(self, random: _RandomSequence, n: int, position: int, bank: tuple[str, str]) -> Json:
        card_type = random.choose(("DEBIT", "DEBIT", "CREDIT"))
        expiry = f"{2029 + random.between(0, 6)}-{random.between(1, 12):02d}"
        return card(
            f"c_{n}_{position}", bank[0], bank[1], card_type, "UNIONPAY", f"{random.between(0, 9999):04d}", expiry
        )

    def _accounts(self, n: int) -> list[Json]:
        random = _RandomSequence(self._seed, n, 5)
        return [
            account(f"acc_{n}_1", "BALANCE", cny(random.between(0, 100_000))),
            account(f"acc_{n}_2", "MONEY_FUND", cny(random.between(0, 2_000_000))),
        ]

    def _promotions(self, n: int) -> list[Json]:
        random = _RandomSequence(self._seed, n, 6)
        bank = random.choose(BANKS)[0]
        off = 100 * random.between(2, 20)
        return [
            promotion(
                f"p_{n}_1",
                "COUPON",
                "Coupon",
                cny(off * 10),
                group="coupon",
                amount_off=cny(off),
                expires_at=self._next_week,
            ),
            promotion(
                f"p_{n}_2",
                "COUPON",
                "Larger coupon",
                cny(off * 30),
                group="coupon",
                amount_off=cny(off * 2),
                expires_at=self._next_week,
            ),
            promotion(
                f"p_{n}_3",
                "RED_PACKET",
                "Red packet",
                cny(0),
                group="red_packet",
                amount_off=cny(random.between(1, 500)),
            ),
            promotion(
                f"p_{n}_4",
                "FULL_REDUCTION",
                "15 off 120",
                cny(12_000),
                group="shop",
                stackable=False,
                amount_off=cny(1_500),
            ),
            promotion(
                f"p_{n}_5",
                "INSTANT_DISCOUNT",
                "Bank day",
                cny(5_000),
                group="bank",
                kinds=("QUICK_PAY",),
                banks=(bank,),
                percent_off_bps=500,
                cap=cny(2_000),
            ),
        ]

    def _quotas(self, n: int) -> list[Json]:
        random = _RandomSequence(self._seed, n, 7)
        banks = [
            quota(
                {"kind": "QUICK_PAY", "bank": bank},
                single=cny(2_000_000),
                daily=(cny(5_000_000), cny(random.between(0, 5_000_000))),
                monthly=(cny(20_000_000), cny(random.between(5_000_000, 15_000_000))),
            )
            for bank in ("ICBC", "CMB", "CCB", "ABC")
        ]
        return [
            *banks,
            quota({"kind": "BALANCE"}, single=cny(1_000_000), daily=(cny(2_000_000), cny(random.between(0, 100_000)))),
            quota({"kind": "WALLET"}, single=cny(5_000_000)),
        ]


class _RandomSequence:
    """A splitmix64 sequence: reproducible like `random.Random`, and much cheaper to seed."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, n: int, part: int) -> None:
        self._state = (seed * 0x9E3779B97F4A7C15 + n * 0xD1B54A32D192ED03 + part * 0x8CB92BA72F3D8DD7) % _WORD

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, inclusive."""
        self._state = state = (self._state + 0x9E3779B97F4A7C15) % _WORD
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % _WORD
        return low + (state ^ (state >> 31)) % (high - low + 1)

    def choose(self, choices: Sequence[Item]) -> Item:
        return choices[self.between(0, len(choices) - 1)]


def _merchant_of(n: int) -> str:
    return f"m_{FIRST_NUMBER + n % MERCHANT_COUNT}"
