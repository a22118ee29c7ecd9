"""What verdicts and flags of a record mean, in a sentence each."""

from __future__ import annotations

from collections.abc import Mapping

from cashier.fanout.timeline import Flag
from cashier.telemetry.records import Verdict

VERDICT_TEXTS: Mapping[Verdict, str] = {
    Verdict.FAILED: "There was no answer, by a source's fault or ours.",
    Verdict.DEGRADED: "The answer of at least one source is missing.",
    Verdict.UNDETERMINED: "A source that could refuse some methods was silent, so they are not offered as available.",
    Verdict.LATE: "It ended after its deadline: this process was late, or the machine.",
    Verdict.SLOW: "It took most of its deadline.",
    Verdict.SAMPLED: "Nothing is wrong: it was recorded as a sample.",
}

FLAG_TEXTS: Mapping[Flag, str] = {
    Flag.TIMEOUT: "No answer within the timeout.",
    Flag.BREAKER_OPEN: "Not called: the breaker is open.",
    Flag.AT_LIMIT: "Not called: as many calls as the source can bear were under way.",
    Flag.FAILED: "The call failed; the reason is beside the status.",
    Flag.HEDGE_SENT: "A second call was sent because the first was slow.",
    Flag.HEDGE_WON: "The second call answered first.",
    Flag.RETRIED: "The call was repeated after a failure.",
    Flag.CACHED: "Answered from the cache.",
    Flag.STALE: "Answered from the cache by an answer that was being refreshed.",
    Flag.FALLBACK: "An old answer from the cache stands in for a failed call.",
    Flag.SECOND_LEVEL: "Found in the shared cache.",
    Flag.SHARED_FETCH: "Waited for the call of another consultation.",
    Flag.BATCHED: "Several asks went in one call.",
    Flag.DIMMED: "Left out because this process was overloaded.",
    Flag.SKIPPED: "Not called: nothing depended on it any more.",
    Flag.NO_TIME: "Not called: too little time was left for an answer.",
    Flag.BUDGET_USED_UP: "No hedge or retry: the budget of extra calls was used up.",
    Flag.LATE: "The call went on after the answer, for the cache.",
    Flag.CUT_OFF: "The deadline cut it off.",
}
