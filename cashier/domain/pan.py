"""Detection of card numbers: the core takes vault tokens only, and refuses before logging.

Two strengths. `looks_like_pan` accepts any number with the length and the check digit of a card
number: for free text and tokens, which should hold no such digits. One number in ten passes by
chance, and order ids, payment codes and millisecond times are such numbers. `looks_issued`
therefore also requires that the number stands alone and that issuers use its prefix with its
length. An id of 16 digits that begins with 1, 20 or 28, like most, never passes. One that begins
with 4, 5 or 6 still passes one time in ten, so ids named by the acquirer or the shop (`order_id`,
`merchant_id`, `user_id`) should be masked in logs rather than refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, TypeAlias

# ISO/IEC 7812-1: at most 19 digits. The shortest in use have 13.
SHORTEST, LONGEST = 13, 19
# Digit groups with spaces or dashes between them. `\d` includes fullwidth digits, which Chinese
# keyboards produce. Digits and separators share no character, so matching never backtracks.
_SEPARATOR = r"[ \u00a0\u2007\u202f\u3000\u2010-\u2015\u2212\uff0d-]"
_RUN = re.compile(rf"\d+(?:{_SEPARATOR}{{1,3}}\d+)*")
_GROUP = re.compile(r"\d+")
# Separators of versions and addresses count only between groups as printed on cards, and all the
# same.
_ODD = r"[._/+\t\u00ad\u200b-\u200d\u2060\ufeff]"
_PRINTED = re.compile(rf"(?<!\d)(?:\d{{4}}({_ODD})\d{{4}}\1\d{{4}}\1\d{{1,7}}|\d{{4}}({_ODD})\d{{6}}\2\d{{5}})(?!\d)")
# The digit sum of twice a digit.
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

# A caller with more than this has one mistake to find, not a list to work through.
MAX_REPORTED_FIELDS = 16
# A value's parent location and its own step. Paths are built only for hits: the paths of all values
# of a deep body, or below a long name, would be many times its size.
_Location: TypeAlias = "tuple[_Location, str] | None"

# Fields of a payment request that hold ids, which may be numbers. A return URL often contains an
# order id.
_PAYMENT_IDS = frozenset(
    {
        "order_id",
        "user_id",
        "merchant_id",
        "method_id",
        "option_id",
        "promotion_ids",
        "chosen_promotions",
        "device_id",
        "return_url",
        "Idempotency-Key",
    }
)
# A wallet's payment code has 16 to 24 digits, and UnionPay's look like its cards. Our signed tokens
# use an alphabet with digits and dashes: a number appears by chance, a foreign one cannot.
_PAYMENT_EXEMPT = frozenset({"auth_code", "consult_token", "payment_token"})

# The first four digits, from and to, and the possible lengths, as the networks publish them.
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
    """True if the text holds 13 to 19 digits that pass Luhn.

    Up to three spaces or dashes may stand between groups.

    A run without separators is one number: a card number joined to other digits is not found.
    """
    return any(True for _ in _card_numbers(text))


def looks_issued(text: str) -> bool:
    """Like `looks_like_pan`, for a number that stands alone with an issuer's prefix and length."""
    return any(standalone and _is_issued(digits) for digits, standalone in _card_numbers(text))


def pan_fields(body: Any, ids: frozenset[str] = frozenset(), max_paths: int | None = None) -> tuple[str, ...]:
    """The paths of card numbers in a decoded JSON value, such as `device.note` or `legs[0].id`.

    `?` stands for a name that is a card number itself. `looks_issued` tests numbers and the text
    under names in `ids`; `looks_like_pan` tests all other text, names included. At most
    `max_paths`.
    """
    paths: list[str] = []
    pending: list[tuple[_Location, str, Any]] = [(None, "", body)]
    while pending and (max_paths is None or len(paths) < max_paths):
        location, name, value = pending.pop()
        match value:
            case dict():
                paths += [_path((location, ".?")) for key in value if looks_like_pan(str(key))][:max_paths]
                pending += [
                    ((location, f".{key}"), str(key), member)
                    for key, member in value.items()
                    if not looks_like_pan(str(key))
                ]
            case list() | tuple():
                pending += [((location, f"[{index}]"), name, element) for index, element in enumerate(value)]
            case str() if looks_issued(value) if name in ids else looks_like_pan(value):
                paths.append(_path(location))
            case int() | float() if (
                abs(value) < 10**LONGEST and value == int(value) and looks_issued(str(abs(int(value))))
            ):
                paths.append(_path(location))
    return tuple(sorted(paths[:max_paths]))


def payment_pan_fields(body: Any) -> tuple[str, ...]:
    """The paths of card numbers in the decoded body of a payment request, unknown fields included.

    At most `MAX_REPORTED_FIELDS`.
    """
    if isinstance(body, dict):
        # Exempt only as text: any other value in these fields is no token.
        body = {name: value for name, value in body.items() if not (name in _PAYMENT_EXEMPT and isinstance(value, str))}
    return pan_fields(body, _PAYMENT_IDS, MAX_REPORTED_FIELDS)


def _path(location: _Location) -> str:
    steps: list[str] = []
    while location is not None:
        location, step = location
        steps.append(step)
    return "".join(reversed(steps)).lstrip(".")


def _card_numbers(text: str) -> Iterator[tuple[str, bool]]:
    """Numbers of whole digit groups that pass Luhn, and whether each stands alone.

    Alone: without a letter or digit next to the groups.
    """
    if len(text) < SHORTEST:
        return
    for run in _RUN.finditer(text):
        standalone = not text[run.start() - 1 : run.start()].isalnum() and not text[run.end() : run.end() + 1].isalnum()
        yield from ((digits, standalone) for digits in _passing_luhn(_GROUP.findall(run.group())))
    for printed in _PRINTED.finditer(text):
        standalone = (
            not text[printed.start() - 1 : printed.start()].isalnum()
            and not text[printed.end() : printed.end() + 1].isalnum()
        )
        yield from ((digits, standalone) for digits in _passing_luhn(["".join(_GROUP.findall(printed.group()))]))


def _passing_luhn(groups: list[str]) -> Iterator[str]:
    """Concatenations of adjacent groups that pass Luhn.

    ISO/IEC 7812-1, annex B: of the digits before the last, every second counts twice.
    """
    digits = "".join(groups)
    if len(digits) < SHORTEST:
        return
    ends = list(accumulate(map(len, groups)))
    sums = _luhn_sums(digits, 0), _luhn_sums(digits, 1)
    first = 0
    for start in (0, *ends[:-1]):
        while first < len(ends) and ends[first] < start + SHORTEST:
            first += 1
        for end in ends[first : first + LONGEST - SHORTEST + 1]:
            if end > start + LONGEST:
                break
            prefix_sums = sums[end % 2]
            if (prefix_sums[end] - prefix_sums[start]) % 10 == 0:
                yield digits[start:end]


def _luhn_sums(digits: str, parity: int) -> list[int]:
    """Prefix sums with the digits at indices of `parity` doubled.

    For numbers whose exclusive end index has this parity.
    """
    return list(
        accumulate(
            (_DOUBLED[int(digit)] if index % 2 == parity else int(digit) for index, digit in enumerate(digits)),
            initial=0,
        )
    )


def _is_issued(digits: str) -> bool:
    prefix = int(digits[:4])
    return any(low <= prefix <= high and len(digits) in lengths for low, high, lengths in _ISSUED)
