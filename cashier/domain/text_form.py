"""The cases in which a code may have a text of its own. The domain chooses, the texts follow."""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    """`GENERAL`: the text of all other cases, and of a code without forms.

    `NO_CARD`: the payer has none. `NOTHING_LEFT`: of a limit. `UNTIL`: the end is known.
    `NO_WAY_BACK`: the rail carries no money back to where it came from. `NAMED`: the promotion is
    known. The others are the types of a challenge.
    """

    GENERAL = "general"
    NO_CARD = "no_card"
    NOTHING_LEFT = "nothing_left"
    UNTIL = "until"
    NO_WAY_BACK = "no_way_back"
    NAMED = "named"
    SMS_OTP = "sms_otp"
    PASSWORD = "password"  # noqa: S105 - a type of challenge
    BIOMETRIC = "biometric"
    THREE_DS = "three_ds"
