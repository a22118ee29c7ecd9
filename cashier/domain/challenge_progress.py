"""A challenge under way: how many answers and challenges a payment has, and until when. Pure; times in seconds since 1970 are handed in.

This is carried by the payer's token, so it bounds one line of tokens. Who presents an older token starts from what that one says, and
nothing here can know. The risk service counts too, over all of them, and its count is the truth: what it says can only lower ours.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

# As many as GOV.UK Pay allows of 3-D Secure; a payment that needs a fourth is not going to be proven.
MAX_CHALLENGES = 3
# Of one challenge. The risk service usually allows fewer.
MAX_ANSWERS = 5
# From its start, whatever the risk service allows: a code that is longer on its way is not the payer's any more.
MAX_LIFETIME_S = 600


class RiskChallengeTerms(Struct, frozen=True):
    """A challenge as the risk service tells it. `expires_at` in seconds since 1970."""

    challenge_id: str
    type: str
    render_value: str
    attempts_left: int
    expires_at: int


class ChallengeProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`attempts` answers were given, of `of`. `number`: the how many-th challenge of this payment it is."""

    challenge_id: str
    type: str
    render_value: str
    decision_id: str
    trigger: str = "RISK"
    started_at: int
    expires_at: int
    attempts: int = 0
    of: int
    number: int = 1

    @property
    def attempts_left(self) -> int:
        return max(self.of - self.attempts, 0)


class ChallengeState(StrEnum):
    """Whether an answer may still be given. What is over is over for this challenge, never for the payment's fate."""

    OPEN = "OPEN"
    EXPIRED = "EXPIRED"
    SPENT = "SPENT"


def challenge_state(challenged: ChallengeProgress, now_s: float) -> ChallengeState:
    if challenged.expires_at <= now_s:
        return ChallengeState.EXPIRED
    return ChallengeState.OPEN if challenged.attempts_left else ChallengeState.SPENT


def carried(
    asked: RiskChallengeTerms, decision_id: str, now_s: int, before: ChallengeProgress | None = None
) -> ChallengeProgress | None:
    """The challenge that the risk service asks for now, after the one `before`; None where there were enough.

    The same one again keeps its start, its end and its count, whatever is said of it now beyond less.
    """
    if before is not None and before.challenge_id == asked.challenge_id:
        of = min(before.of, before.attempts + asked.attempts_left)
        return replace(before, expires_at=min(before.expires_at, asked.expires_at), of=of, decision_id=decision_id)
    number = 1 if before is None else before.number + 1
    if number > MAX_CHALLENGES:
        return None
    return ChallengeProgress(
        challenge_id=asked.challenge_id,
        type=asked.type,
        render_value=asked.render_value,
        decision_id=decision_id,
        started_at=now_s,
        expires_at=min(asked.expires_at, now_s + MAX_LIFETIME_S),
        of=min(asked.attempts_left, MAX_ANSWERS),
        number=number,
    )


def answered(before: ChallengeProgress, attempts_left: int) -> ChallengeProgress:
    """After an answer that did not pass, of which the risk service said how many are left. Neither start nor end moves."""
    attempts = before.attempts + 1
    return replace(before, attempts=attempts, of=min(before.of, attempts + attempts_left))
