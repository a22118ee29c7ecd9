"""Answers and time of a challenge are bounded for any reports of the risk service."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.challenge_progress import (
    MAX_ANSWERS,
    MAX_CHALLENGES,
    MAX_LIFETIME_S,
    ChallengeProgress,
    ChallengeState,
    RiskChallengeTerms,
    after_wrong_answer,
    challenge_state,
    next_challenge,
)

NOW_S = 1_700_000_000
REQUESTED = RiskChallengeTerms("ch_1", "SMS_OTP", "138****1234", 3, NOW_S + 300)


def started(
    requested: RiskChallengeTerms = REQUESTED, now_s: int = NOW_S, previous: ChallengeProgress | None = None
) -> ChallengeProgress:
    challenge = next_challenge(requested, "d_1", now_s, previous)
    assert challenge is not None
    return challenge


def test_a_challenge_has_as_many_answers_as_risk_allows() -> None:
    progress = started()
    for left in (2, 1, 0):
        assert challenge_state(progress, NOW_S) is ChallengeState.OPEN
        progress = after_wrong_answer(progress, left)
        assert progress.attempts_left == left
    assert challenge_state(progress, NOW_S) is ChallengeState.SPENT


def test_answers_are_bounded_even_if_risk_never_counts_down() -> None:
    progress = started(RiskChallengeTerms("ch_1", "SMS_OTP", "", 1_000, NOW_S + 300))
    for _ in range(MAX_ANSWERS):
        assert challenge_state(progress, NOW_S) is ChallengeState.OPEN
        progress = after_wrong_answer(progress, 1_000)
    assert challenge_state(progress, NOW_S) is ChallengeState.SPENT


def test_a_code_may_be_sent_again_when_risk_says_so_at_the_start() -> None:
    terms = RiskChallengeTerms("ch_1", "SMS_OTP", "", 3, NOW_S + 300, resend_after_s=45)
    assert started().resend_at is None
    assert started(terms).resend_at == NOW_S + 45
    assert started(terms, previous=started(terms)).resend_at == NOW_S + 45, "the same challenge keeps its start"


def test_answers_counted_by_risk_on_other_tokens_count_here() -> None:
    progress = after_wrong_answer(started(), 0)
    assert challenge_state(progress, NOW_S) is ChallengeState.SPENT
    assert started(RiskChallengeTerms("ch_1", "SMS_OTP", "", 1, NOW_S + 300), previous=started()).attempts_left == 1


def test_the_end_is_counted_from_the_start_and_no_answer_moves_it() -> None:
    progress = after_wrong_answer(after_wrong_answer(started(), 2), 1)
    assert (progress.started_at, progress.expires_at) == (NOW_S, NOW_S + 300)
    assert challenge_state(progress, NOW_S + 299.9) is ChallengeState.OPEN
    assert challenge_state(progress, NOW_S + 300) is ChallengeState.EXPIRED


def test_a_challenge_lasts_at_most_its_maximum_lifetime() -> None:
    assert started(RiskChallengeTerms("ch_1", "SMS_OTP", "", 3, NOW_S + 86_400)).expires_at == NOW_S + MAX_LIFETIME_S


def test_the_same_challenge_again_gains_neither_time_nor_answers() -> None:
    previous = after_wrong_answer(started(), 2)
    again = started(RiskChallengeTerms("ch_1", "SMS_OTP", "", 9, NOW_S + 9_000), NOW_S + 100, previous)
    assert (again.started_at, again.expires_at, again.attempts_left, again.number) == (NOW_S, NOW_S + 300, 2, 1)


def test_another_challenge_starts_anew_and_a_fourth_is_refused() -> None:
    progress = started()
    for number in range(2, MAX_CHALLENGES + 1):
        progress = started(
            RiskChallengeTerms(f"ch_{number}", "SMS_OTP", "", 3, NOW_S + 900),
            NOW_S + 300,
            after_wrong_answer(progress, 2),
        )
        assert (progress.number, progress.attempts_left, progress.started_at) == (number, 3, NOW_S + 300)
    assert (
        next_challenge(RiskChallengeTerms("ch_9", "SMS_OTP", "", 3, NOW_S + 900), "d_1", NOW_S + 300, progress) is None
    )


REPORTS = st.tuples(
    st.sampled_from(["answer", "challenge"]), st.integers(0, 9), st.integers(-60, 2_000), st.integers(1, 4)
)


@given(st.lists(REPORTS, max_size=60))
def test_challenges_of_a_payment_end_for_any_answers_of_risk(reports: list[tuple[str, int, int, int]]) -> None:
    progress: ChallengeProgress | None = started()
    at_s, answers = NOW_S, 0
    for what, left, life_s, number in reports:
        at_s += 1
        if progress is None:
            break
        if what == "challenge":
            progress = next_challenge(
                RiskChallengeTerms(f"ch_{number}", "SMS_OTP", "", left, at_s + life_s), "d_1", at_s, progress
            )
        elif challenge_state(progress, at_s) is ChallengeState.OPEN:
            progress, answers = after_wrong_answer(progress, left), answers + 1
        assert progress is None or (
            progress.expires_at - progress.started_at <= MAX_LIFETIME_S and progress.number <= MAX_CHALLENGES
        )
    assert answers <= MAX_CHALLENGES * MAX_ANSWERS
