"""The company's records: those of a sandbox world, before a service gives them its own shape."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from cashier.sandbox import World
from cashier.sandbox.read_sources import SourceReader
from cashier.sandbox.records import Json
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.upstream_answer import UpstreamAnswer

DIGITS = {"CNY": 2, "IDR": 2, "JPY": 0, "KWD": 3}
# The bank codes that the card centre, the limits desk and the campaign desk use among themselves.
BANK_NUMBERS = {
    "ICBC": "102", "ABC": "103", "BOC": "104", "CCB": "105", "COMM": "301", "CMB": "308", "JCB": "901", "SMBC": "909",
    "BCA": "014", "NBK": "704", "FLEXI_PAY": "990",
}  # fmt: skip


class Records:
    """`mistaken`: sources that answer about another subject than the one asked for."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.mistaken: set[str] = set()
        self._reader = SourceReader(world)

    def read(self, source: str, **parameters: str) -> Json | None:
        """The record in the contract's shape; None if there is none."""
        answer = self.about(source, self._reader.look_up(source, parameters))
        return answer.body if answer.status == 200 else None

    def about(self, source: str, answer: UpstreamAnswer) -> UpstreamAnswer:
        return answer.with_wrong_identity(SOURCES[source].identity) if source in self.mistaken else answer


def decimal(money: Any) -> Decimal:
    """An amount in major units, with the decimals of its currency."""
    return Decimal(money["value"]).scaleb(-DIGITS[money["currency"]])
