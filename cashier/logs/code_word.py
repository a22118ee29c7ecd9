"""What of an upstream's codes may be seen by operators."""

from __future__ import annotations

import re

# With at most six digits: fewer than in the number of a card, an account or a telephone.
_CODE = re.compile(r"(?!(?:[^0-9]*[0-9]){7})[A-Za-z0-9_.:-]{1,64}")


def is_code_word(code: str) -> bool:
    """Whether it can be a code. Anything else, such as a name or number, may be the payer's."""
    return _CODE.fullmatch(code) is not None


def code_word(code: str) -> str:
    """The code, or `malformed` in the place of what can be none."""
    return code if is_code_word(code) else "malformed"
