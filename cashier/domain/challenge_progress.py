"""Progress of a challenge: the answers and challenges that a payment has left, and until when.

Times are seconds since 1970. The state travels in the payment token, so it bounds one chain of
tokens; a caller with an older token starts from the older state. The risk service counts over all
of them. Its count is authoritative: it can lower ours, never raise it.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

# Per payment, as in GOV.UK Pay for 3-D Secure.
MAX_CHALLENGES = 3
# Per payment, over all its challenges: each may send a text message.
MAX_RESENDS = 3
# Per challenge. The risk service usually allows fewer.
MAX_ANSWERS = 5
# Per challenge, from its start, even if the risk service allows more: an older code may be in other
# hands.
MAX_LIFETIME_S = 600


class RiskChallengeTerms(Struct, frozen=True):
    """A challenge as the risk service reports it. `expires_at`: in seconds since 1970."""

    challenge_id: str
    type: str
    render_value: str
    attempts_left: int
    expires_at: int
    resend_after_s: int | None = None


class ChallengeProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The challenge as the token carries it: `attempts` answers of `of` are used.

    `number`: 1 for the payment's first. `resend_at`: when its code may first be sent again; None:
    the risk service does not say.
    """

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
    resend_at: int | None = None

    @property
    def attempts_left(self) -> int:
        return max(self.of - self.attempts, 0)


class ChallengeState(StrEnum):
    """Whether another answer is allowed. The end of a challenge does not decide the payment."""

    OPEN = "OPEN"
    EXPIRED = "EXPIRED"
    SPENT = "SPENT"


def challenge_state(progress: ChallengeProgress, now_s: float) -> ChallengeState:
    if progress.expires_at <= now_s:
        return ChallengeState.EXPIRED
    return ChallengeState.OPEN if progress.attempts_left else ChallengeState.SPENT


def next_challenge(
    requested: RiskChallengeTerms, decision_id: str, now_s: int, previous: ChallengeProgress | None = None
) -> ChallengeProgress | None:
    """The challenge that the risk service requests now; None beyond `MAX_CHALLENGES`.

    The same challenge again keeps start and count. Its end and its attempts can only shrink.
    """
    if previous is not None and previous.challenge_id == requested.challenge_id:
        of = min(previous.of, previous.attempts + requested.attempts_left)
        expires_at = min(previous.expires_at, requested.expires_at)
        return replace(previous, expires_at=expires_at, of=of, decision_id=decision_id)
    number = 1 if previous is None else previous.number + 1
    if number > MAX_CHALLENGES:
        return None
    return ChallengeProgress(
        challenge_id=requested.challenge_id,
        type=requested.type,
        render_value=requested.render_value,
        decision_id=decision_id,
        started_at=now_s,
        expires_at=min(requested.expires_at, now_s + MAX_LIFETIME_S),
        of=min(requested.attempts_left, MAX_ANSWERS),
        number=number,
        resend_at=None if requested.resend_after_s is None else now_s + requested.resend_after_s,
    )


def after_wrong_answer(progress: ChallengeProgress, attempts_left: int) -> ChallengeProgress:
    """Count a wrong answer.

    `attempts_left`: as the risk service reports it. Start and end do not move.
    """
    attempts = progress.attempts + 1
    return replace(progress, attempts=attempts, of=min(progress.of, attempts + attempts_left))
