"""An amount as somebody types it: digits of any script, separators of the page's language."""

from __future__ import annotations

import re
import unicodedata

from cashier.domain.local_format import Formats
from cashier.domain.money import DIGITS, MAX_VALUE, Currency, Money

_LONGEST = 32
# Arabic separators, which normalisation leaves as they are.
_SEPARATORS = str.maketrans({"\u066b": ".", "\u066c": ","})


def parse_amount(text: str, currency: Currency, formats: Formats) -> Money | None:
    """More than nothing, or None for what is no amount of this currency.

    A group of three digits ends at a separator of groups, so `1.250` is a thousand and more only
    where the language writes it so. A space separates groups everywhere. What is ambiguous is none:
    it would be somebody's money.
    """
    if len(text) > _LONGEST or any(unicodedata.category(sign) == "No" for sign in text):
        return None
    plain = _in_ascii(text)
    digits, decimal, group = DIGITS[currency], re.escape(formats.decimal), re.escape(_in_ascii(formats.group) or " ")
    fraction = rf"(?:{decimal}(?P<fraction>[0-9]{{1,{digits}}}))?" if digits else ""
    grouped = rf"[1-9][0-9]{{0,2}}(?P<group>{group}| )[0-9]{{3}}(?:(?P=group)[0-9]{{3}})*"
    match = re.fullmatch(rf"(?P<whole>[0-9]+|{grouped}){fraction}", plain)
    if match is None:
        return None
    whole = re.sub(r"[^0-9]", "", match["whole"])
    part = (match["fraction"] or "") if digits else ""
    value = int(whole + part.ljust(digits, "0"))
    return Money(currency, value) if 0 < value <= MAX_VALUE else None


def _in_ascii(text: str) -> str:
    """Without marks of direction, and with spaces between digits only; each digit as 0 to 9."""
    normal = unicodedata.normalize("NFKC", text).translate(_SEPARATORS)
    signs = (" " if sign.isspace() else sign for sign in normal if unicodedata.category(sign) != "Cf")
    plain = "".join(str(unicodedata.digit(sign)) if sign.isdecimal() else sign for sign in signs)
    return re.sub(r" *([^0-9 ]) *", r"\1", plain.strip())
