"""Card numbers where none may be: this core takes vault tokens, and a number that slips in is refused before anything is logged. Pure.

Two strengths. `looks_like_pan` takes whatever has the length and the check digit of a card number: right for what is free text or a
token, where digits have no business. One number in ten passes that check by chance, and order ids, a wallet's payment codes and times in
milliseconds are such numbers; `looks_issued` therefore asks as well that it stands alone and that an issuer gives out numbers that begin
so and are as long. An id of 16 digits that begins with 1, 20 or 28, as most do, never is; one that begins with 4, 5 or 6 still is one
time in ten, so what is the acquirer's or the shop's own to name (`order_id`, `merchant_id`, `user_id`) should be masked in logs rather
than refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, TypeAlias

# ISO/IEC 7812-1: at most 19 digits. The shortest that are in use have 13.
SHORTEST, LONGEST = 13, 19
# Groups of digits with spaces or dashes between them, of every alphabet: fullwidth digits come out of Chinese keyboards. Digits and
# separators have no character in common, so there is only one way to match.
_SEPARATOR = r"[ \u00a0\u2007\u202f\u3000\u2010-\u2015\u2212\uff0d-]"
_RUN = re.compile(rf"\d+(?:{_SEPARATOR}{{1,3}}\d+)*")
_GROUP = re.compile(r"\d+")
# Between groups of the length that is printed on cards, and the same everywhere, also what elsewhere separates versions and addresses.
_ODD = r"[._/+\t\u00ad\u200b-\u200d\u2060\ufeff]"
_PRINTED = re.compile(rf"(?<!\d)(?:\d{{4}}({_ODD})\d{{4}}\1\d{{4}}\1\d{{1,7}}|\d{{4}}({_ODD})\d{{6}}\2\d{{5}})(?!\d)")
# What two times a digit comes to, its own digits added up.
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

# A caller who sends more than so many has a mistake to find, not a list to go through.
MAX_REPORTED_FIELDS = 16
# Where a value is: the place that it is in, and how it is called there. Paths are put together only for what is found, because those of all
# values of a deep body, or of one below a long name, would be many times the body.
_Place: TypeAlias = "tuple[_Place, str] | None"

# Of what a caller of payments sends: ids, which may well be numbers. A device names itself, and a url to return to often names an order.
_PAYMENT_IDS = frozenset(
    {
        "order_id",
        "user_id",
        "merchant_id",
        "method_id",
        "option_id",
        "promotion_ids",
        "device_id",
        "return_url",
        "Idempotency-Key",
    }
)
# A wallet's payment code is 16 to 24 digits, and one of UnionPay's looks like a card of theirs. Tokens are signed by us, in an alphabet
# with digits and dashes: chance writes a number into one now and then, and nobody else's number gets into one.
_PAYMENT_EXEMPT = frozenset({"auth_code", "consult_token", "payment_token"})

# First four digits from and to, and how many there are in all; as the networks publish them.
_ISSUED: tuple[tuple[int, int, frozenset[int]], ...] = (
    (2200, 2204, frozenset(range(16, 20))),  # Mir
    (2221, 2720, frozenset((16,))),  # Mastercard
    (3000, 3059, frozenset(range(14, 20))),  # Diners
    (3400, 3499, frozenset((15,))),  # American Express
    (3528, 3589, frozenset(range(16, 20))),  # JCB
    (3600, 3699, frozenset(range(14, 20))),  # Diners
    (3700, 3799, frozenset((15,))),  # American Express
    (3800, 3999, frozenset(range(14, 20))),  # Diners
    (4000, 4999, frozenset((13, 16, 18, 19))),  # Visa
    (5000, 5099, frozenset(range(13, 20))),  # Maestro, Elo, RuPay, Verve
    (5100, 5599, frozenset((16,))),  # Mastercard
    (5600, 6999, frozenset(range(13, 20))),  # Maestro, Discover, UnionPay, RuPay
    (8100, 8299, frozenset(range(16, 20))),  # UnionPay, RuPay
    (9558, 9558, frozenset(range(16, 20))),  # ICBC, before UnionPay
    (9792, 9792, frozenset((16,))),  # Troy
)


def looks_like_pan(text: str) -> bool:
    """13 to 19 digits that pass Luhn, with single to threefold spaces or dashes between, anywhere in the text.

    Digits that go on without a separator are one number: a card number that is glued to other digits is not looked for in them.
    """
    return any(True for _ in _numbers(text))


def looks_issued(text: str) -> bool:
    """The same for a number that stands alone, no letter or digit beside it, and that an issuer may have given out."""
    return any(alone and _is_issued(digits) for digits, alone in _numbers(text))


def pan_fields(body: Any, ids: frozenset[str] = frozenset(), most: int | None = None) -> tuple[str, ...]:
    """Where card numbers are in a decoded JSON value: paths such as `device.note` or `legs[0].id`; `?` for a name that is one itself.

    Text under a name in `ids` is judged by `looks_issued`, and so are numbers; all other text, names included, by `looks_like_pan`.
    Not all that there are, but some, where there are more than `most`.
    """
    found: list[str] = []
    left: list[tuple[_Place, str, Any]] = [(None, "", body)]
    while left and (most is None or len(found) < most):
        place, name, value = left.pop()
        match value:
            case dict():
                found += [_path((place, ".?")) for key in value if looks_like_pan(str(key))][:most]
                left += [
                    ((place, f".{key}"), str(key), part) for key, part in value.items() if not looks_like_pan(str(key))
                ]
            case list() | tuple():
                left += [((place, f"[{index}]"), name, part) for index, part in enumerate(value)]
            case str() if looks_issued(value) if name in ids else looks_like_pan(value):
                found.append(_path(place))
            case int() | float() if (
                abs(value) < 10**LONGEST and value == int(value) and looks_issued(str(abs(int(value))))
            ):
                found.append(_path(place))
    return tuple(sorted(found[:most]))


def payment_pan_fields(body: Any) -> tuple[str, ...]:
    """Where card numbers are in what a caller of payments sent, decoded and as it came: unknown fields too.

    Paths as of `pan_fields`, of at most `MAX_REPORTED_FIELDS`.
    """
    if isinstance(body, dict):
        # Only as the text that it should be: what is put inside of it by mistake is no token.
        body = {name: value for name, value in body.items() if not (name in _PAYMENT_EXEMPT and isinstance(value, str))}
    return pan_fields(body, _PAYMENT_IDS, MAX_REPORTED_FIELDS)


def _path(place: _Place) -> str:
    pieces: list[str] = []
    while place is not None:
        place, piece = place
        pieces.append(piece)
    return "".join(reversed(pieces)).lstrip(".")


def _numbers(text: str) -> Iterator[tuple[str, bool]]:
    """Every number of 13 to 19 digits that whole groups come to and that passes Luhn, and whether nothing but groups is beside it."""
    if len(text) < SHORTEST:
        return
    for run in _RUN.finditer(text):
        alone = not text[run.start() - 1 : run.start()].isalnum() and not text[run.end() : run.end() + 1].isalnum()
        yield from ((digits, alone) for digits in _passing(_GROUP.findall(run.group())))
    for printed in _PRINTED.finditer(text):
        alone = (
            not text[printed.start() - 1 : printed.start()].isalnum()
            and not text[printed.end() : printed.end() + 1].isalnum()
        )
        yield from ((digits, alone) for digits in _passing(["".join(_GROUP.findall(printed.group()))]))


def _passing(groups: list[str]) -> Iterator[str]:
    """The groups put together to what passes Luhn (ISO/IEC 7812-1, annex B: of the digits before the last every second counts twice)."""
    digits = "".join(groups)
    if len(digits) < SHORTEST:
        return
    ends = list(accumulate(map(len, groups)))
    sums = _sums(digits, 0), _sums(digits, 1)
    first = 0
    for start in (0, *ends[:-1]):
        while first < len(ends) and ends[first] < start + SHORTEST:
            first += 1
        for end in ends[first : first + LONGEST - SHORTEST + 1]:
            if end > start + LONGEST:
                break
            side = sums[end % 2]
            if (side[end] - side[start]) % 10 == 0:
                yield digits[start:end]


def _sums(digits: str, side: int) -> list[int]:
    """Of the first n digits, by n, where those at places of the other parity than `side` count twice: a number that ends there passes."""
    return list(
        accumulate(
            (_DOUBLED[int(digit)] if place % 2 == side else int(digit) for place, digit in enumerate(digits)), initial=0
        )
    )


def _is_issued(digits: str) -> bool:
    prefix = int(digits[:4])
    return any(low <= prefix <= high and len(digits) in lengths for low, high, lengths in _ISSUED)
