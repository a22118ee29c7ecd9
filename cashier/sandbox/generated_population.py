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

from cashier.sandbox.records import Json, SimulatedUser, money, record, resolve_times

FIRST_NUMBER = 100_000
MERCHANT_COUNT = 8

BANKS = (
    ("ICBC", "工商银行", "ICBC"),
    ("CMB", "招商银行", "China Merchants Bank"),
    ("CCB", "建设银行", "China Construction Bank"),
    ("ABC", "农业银行", "Agricultural Bank of China"),
    ("BOC", "中国银行", "Bank of China"),
    ("COMM", "交通银行", "Bank of Communications"),
)
GOODS = (
    ("A novel", "books"),
    ("Headphones", "electronics"),
    ("Running shoes", "sports"),
    ("Tea for a month", "groceries"),
    ("A tent", "outdoor"),
)
PRODUCTS = ("STANDARD_CASHIER", "EMBEDDED_CASHIER", "SCAN")
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
        return record(
            "order",
            order_id=f"o_{n}",
            merchant_id=_merchant_of(n),
            user_id=f"u_{n}",
            amount=self._amount(n),
            title=title,
            country="CN",
            category=category,
            expires_at=self._tomorrow,
        )

    def merchant(self, n: int) -> Json:
        return record(
            "merchant", merchant_id=f"m_{n}", name=f"Shop {n}", country="CN", mcc="5999", products=PRODUCTS, kinds=KINDS
        )

    def user(self, n: int) -> SimulatedUser:
        """Each part has its own random sequence, so that a change of one keeps the others."""
        agreement = record(
            "agreement",
            agreement_id=f"ag_{n}",
            merchant_id=_merchant_of(n),
            channel_id="ch_agreement_unionpay",
            single_max=_cny(1_000_000),
        )
        return SimulatedUser(
            member=self._member(n),
            cards=self._cards(n),
            agreements=[agreement],
            accounts=self._accounts(n),
            promotions=self._promotions(n),
            boosts=[record("boost", kind="QUICK_PAY", weight_bps=300, label="Bank week")],
            quotas=self._quotas(n),
        )

    def _amount(self, n: int) -> Json:
        return _cny(_RandomSequence(self._seed, n, 2).between(500, 80_000))

    def _member(self, n: int) -> Json:
        random = _RandomSequence(self._seed, n, 3)
        most = {"QUICK_PAY": 90, "WALLET": 60, "BALANCE": 30}
        return record(
            "member",
            user_id=f"u_{n}",
            country="CN",
            usage=[{"kind": kind, "count": random.between(0, count)} for kind, count in most.items()],
            kyc_level=random.between(2, 3),
            last_used={"kind": "QUICK_PAY", "instrument_id": f"c_{n}_{random.between(1, 5)}"},
        )

    def _cards(self, n: int) -> list[Json]:
        random = _RandomSequence(self._seed, n, 4)
        first = random.between(0, len(BANKS) - 1)
        return [self._card(random, n, position, BANKS[(first + position) % len(BANKS)]) for position in range(1, 6)]

    def _card(self, random: _RandomSequence, n: int, position: int, bank: tuple[str, str, str]) -> Json:
        card_type = random.choose(("DEBIT", "DEBIT", "CREDIT"))
        expiry = f"{2029 + random.between(0, 6)}-{random.between(1, 12):02d}"
        return record(
            "card",
            card_id=f"c_{n}_{position}",
            bank=bank[0],
            bank_name=bank[1],
            bank_names={"en": bank[2]},
            type=card_type,
            brand="UNIONPAY",
            last4=f"{random.between(0, 9999):04d}",
            expiry=expiry,
        )

    def _accounts(self, n: int) -> list[Json]:
        random = _RandomSequence(self._seed, n, 5)
        most = {"BALANCE": 100_000, "MONEY_FUND": 2_000_000}
        return [
            record("account", account_id=f"acc_{n}_{i}", type=account_type, available=_cny(random.between(0, value)))
            for i, (account_type, value) in enumerate(most.items(), 1)
        ]

    def _promotions(self, n: int) -> list[Json]:
        random = _RandomSequence(self._seed, n, 6)
        bank = random.choose(BANKS)[0]
        off = 100 * random.between(2, 20)
        coupon = {"type": "COUPON", "group": "coupon", "expires_at": self._next_week}
        terms: tuple[Json, ...] = (
            {**coupon, "title": "Coupon", "threshold": _cny(off * 10), "amount_off": _cny(off)},
            {**coupon, "title": "Larger coupon", "threshold": _cny(off * 30), "amount_off": _cny(off * 2)},
            {
                "type": "RED_PACKET",
                "title": "Red packet",
                "threshold": _cny(0),
                "group": "red_packet",
                "amount_off": _cny(random.between(1, 500)),
            },
            {
                "type": "FULL_REDUCTION",
                "title": "15 off 120",
                "threshold": _cny(12_000),
                "group": "shop",
                "stackable": False,
                "amount_off": _cny(1_500),
            },
            {
                "type": "INSTANT_DISCOUNT",
                "title": "Bank day",
                "threshold": _cny(5_000),
                "group": "bank",
                "kinds": ("QUICK_PAY",),
                "banks": (bank,),
                "percent_off_bps": 500,
                "cap": _cny(2_000),
            },
        )
        return [record("promotion", promotion_id=f"p_{n}_{i}", **fields) for i, fields in enumerate(terms, 1)]

    def _quotas(self, n: int) -> list[Json]:
        random = _RandomSequence(self._seed, n, 7)
        banks = [
            {
                "scope": {"kind": "QUICK_PAY", "bank": bank},
                "single": _cny(2_000_000),
                "daily": _limit(5_000_000, random.between(0, 5_000_000)),
                "monthly": _limit(20_000_000, random.between(5_000_000, 15_000_000)),
            }
            for bank in ("ICBC", "CMB", "CCB", "ABC")
        ]
        balance_used = random.between(0, 100_000)
        return [
            *banks,
            {"scope": {"kind": "BALANCE"}, "single": _cny(1_000_000), "daily": _limit(2_000_000, balance_used)},
            {"scope": {"kind": "WALLET"}, "single": _cny(5_000_000)},
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


def _cny(value: int) -> Json:
    """`value` in fen."""
    return money("CNY", value)


def _limit(limit: int, used: int) -> Json:
    return {"limit": _cny(limit), "used": _cny(used)}
