"""A challenge has so many answers and so much time, counted from its start, whatever is said on the way."""

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
ASKED = RiskChallengeTerms("ch_1", "SMS_OTP", "138****1234", 3, NOW_S + 300)


def begun(
    asked: RiskChallengeTerms = ASKED, now_s: int = NOW_S, before: ChallengeProgress | None = None
) -> ChallengeProgress:
    found = next_challenge(asked, "d_1", now_s, before)
    assert found is not None
    return found


def test_a_challenge_has_as_many_answers_as_risk_allows() -> None:
    now = begun()
    for left in (2, 1, 0):
        assert challenge_state(now, NOW_S) is ChallengeState.OPEN
        now = after_wrong_answer(now, left)
        assert now.attempts_left == left
    assert challenge_state(now, NOW_S) is ChallengeState.SPENT


def test_answers_are_bounded_even_if_risk_never_counts_down() -> None:
    now = begun(RiskChallengeTerms("ch_1", "SMS_OTP", "", 1_000, NOW_S + 300))
    for _ in range(MAX_ANSWERS):
        assert challenge_state(now, NOW_S) is ChallengeState.OPEN
        now = after_wrong_answer(now, 1_000)
    assert challenge_state(now, NOW_S) is ChallengeState.SPENT


def test_answers_counted_by_risk_on_other_tokens_count_here() -> None:
    now = after_wrong_answer(begun(), 0)
    assert challenge_state(now, NOW_S) is ChallengeState.SPENT
    assert begun(RiskChallengeTerms("ch_1", "SMS_OTP", "", 1, NOW_S + 300), before=begun()).attempts_left == 1


def test_the_end_is_counted_from_the_start_and_no_answer_moves_it() -> None:
    now = after_wrong_answer(after_wrong_answer(begun(), 2), 1)
    assert (now.started_at, now.expires_at) == (NOW_S, NOW_S + 300)
    assert challenge_state(now, NOW_S + 299.9) is ChallengeState.OPEN
    assert challenge_state(now, NOW_S + 300) is ChallengeState.EXPIRED


def test_a_challenge_lasts_at_most_its_maximum_lifetime() -> None:
    assert begun(RiskChallengeTerms("ch_1", "SMS_OTP", "", 3, NOW_S + 86_400)).expires_at == NOW_S + MAX_LIFETIME_S


def test_the_same_challenge_again_gains_neither_time_nor_answers() -> None:
    before = after_wrong_answer(begun(), 2)
    again = begun(RiskChallengeTerms("ch_1", "SMS_OTP", "", 9, NOW_S + 9_000), NOW_S + 100, before)
    assert (again.started_at, again.expires_at, again.attempts_left, again.number) == (NOW_S, NOW_S + 300, 2, 1)


def test_another_challenge_starts_anew_and_a_fourth_is_refused() -> None:
    now = begun()
    for number in range(2, MAX_CHALLENGES + 1):
        now = begun(
            RiskChallengeTerms(f"ch_{number}", "SMS_OTP", "", 3, NOW_S + 900), NOW_S + 300, after_wrong_answer(now, 2)
        )
        assert (now.number, now.attempts_left, now.started_at) == (number, 3, NOW_S + 300)
    assert next_challenge(RiskChallengeTerms("ch_9", "SMS_OTP", "", 3, NOW_S + 900), "d_1", NOW_S + 300, now) is None


SAID = st.tuples(st.sampled_from(["answer", "told"]), st.integers(0, 9), st.integers(-60, 2_000), st.integers(1, 4))


@given(st.lists(SAID, max_size=60))
def test_challenges_of_a_payment_end_for_any_answers_of_risk(said: list[tuple[str, int, int, int]]) -> None:
    now: ChallengeProgress | None = begun()
    at_s, answers = NOW_S, 0
    for what, left, life_s, number in said:
        at_s += 1
        if now is None:
            break
        if what == "told":
            now = next_challenge(
                RiskChallengeTerms(f"ch_{number}", "SMS_OTP", "", left, at_s + life_s), "d_1", at_s, now
            )
        elif challenge_state(now, at_s) is ChallengeState.OPEN:
            now, answers = after_wrong_answer(now, left), answers + 1
        assert now is None or (now.expires_at - now.started_at <= MAX_LIFETIME_S and now.number <= MAX_CHALLENGES)
    assert answers <= MAX_CHALLENGES * MAX_ANSWERS
