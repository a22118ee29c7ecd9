"""The rules of the kit: what the contract says about each, and what a breach costs in production.

`advice` rules are no part of the contract: a finding is a warning and the service still conforms.
`{silence}` in a cost is what a consultation or payment becomes without the service's answer.
"""

from __future__ import annotations

from msgspec import Struct


class Rule(Struct, frozen=True):
    """`name`: in tables and JUnit. `title`: what was tried, if it passed."""

    name: str
    title: str
    contract: str
    cost: str
    advice: bool = False


ANSWERS = Rule(
    "answers",
    "a subject that exists gets a 200",
    "200 with the answer; 404 only for what does not exist. Redirects are not followed; 201, 204 and 3xx are garbled, "
    "5xx is unreachable",
    "{silence}; failures open the breaker, which then stops all calls",
)
SCHEMA = Rule(
    "schema",
    "every field has its type",
    "a JSON object in UTF-8; a missing required field, null in one, or a wrong type in any makes the whole answer "
    "GARBLED",
    "{silence}",
)
ROWS = Rule(
    "rows",
    "ids are unique, limits in the currency asked for",
    "two entries with one id, or a limit in another currency than requested, make the whole answer GARBLED",
    "{silence}",
)
IDENTITY = Rule(
    "identity",
    "the answer names the subject that was asked for",
    "an answer about another user, order, merchant or payment is WRONG_IDENTITY and thrown away",
    "one payer would see another's data; so the answer is dropped, its connection closed, and {silence}",
)
SPELLING = Rule(
    "spelling",
    "no unknown field is spelled like one of the contract",
    "unknown fields are ignored",
    "what the field should say is lost: an optional limit, fee or expiry counts as absent",
    advice=True,
)
VALUES = Rule(
    "values",
    "every state and kind is known",
    "a row with an unknown status or kind leaves its methods undetermined, or is dropped if it only improves an offer",
    "payers cannot use the methods of that row, or do not get that discount",
    advice=True,
)
NOT_FOUND = Rule(
    "not-found",
    "404 means that there is none",
    "404 with no body, or a JSON object whose code, if any, is NOT_FOUND, *_NOT_FOUND or *_UNKNOWN. Any other 404 is "
    "garbled, and 400 or 500 is no answer",
    "new payers, who have nothing yet, are treated as if the service had failed: {silence}",
)
INVENTED = Rule(
    "invented",
    "what does not exist is not answered with 200",
    "404 means that there is none; a 200 states that the subject exists",
    "a mistyped or forged id is taken for real: it is neither refused nor found out",
)
IDS = Rule(
    "ids",
    "ids of all characters and lengths are taken",
    "an id is 1 to 64 of A-Za-z0-9_.:@~-, the first a letter or digit",
    "payers, orders or shops with such ids can never pay",
)
UNKNOWN_PATH = Rule(
    "unknown-path",
    "a path that does not exist is told from a subject that does not",
    "an empty 404, or one with NOT_FOUND, means that there is none",
    "one wrong prefix in a url means that no payer has limits, cards or frozen accounts, and nothing tells you",
    advice=True,
)
TOLERANCE = Rule(
    "tolerance",
    "unknown headers, query parameters and fields are ignored",
    "a contract may grow by optional fields; what a service does not know it ignores",
    "the next version of the cashier, or a proxy that adds a header, takes the service down: {silence}",
)
CONTENT_TYPE = Rule(
    "content-type",
    "answers are application/json",
    "an answer is a JSON object in UTF-8, application/json",
    "gateways, caches and firewalls judge by this header: they rewrite, block or show the answer as a page",
)
FRAMING = Rule(
    "framing",
    "answers are HTTP/1.1 with a length or chunks",
    "a body needs a Content-Length or chunked encoding, no content encoding, at most 1 MiB, 16 KiB around it, and "
    "nothing after it",
    "the end of the answer is unknown or wrong, so it is thrown away with its connection: {silence}",
)
KEEP_ALIVE = Rule(
    "keep-alive",
    "a connection takes one request after another",
    "connections are kept and used again, one request at a time; pipelining is not used",
    "every call opens a connection: a round trip more, two or three with TLS, and ports run out under load",
)
CLOSING = Rule(
    "closing",
    "connections are closed only after an announcement",
    "a service that closes a connection says so with Connection: close",
    "requests on the closing connection are lost: reads are sent again, but of a submit the outcome is unknown",
)
IDLE = Rule(
    "idle",
    "an idle connection stays open",
    "the client keeps connections for idle_s (50 s); the service should keep them longer",
    "after each quiet while the first calls fail and are sent again; set idle_s below the service's timeout",
    advice=True,
)
DEADLINE = Rule(
    "deadline",
    "X-Deadline-Ms is taken, however little is left",
    "X-Deadline-Ms is the remaining time in whole ms, at least 1; later the answer is no longer awaited",
    "calls that start late in a consultation fail, and a short deadline brings a partial answer as if it were whole",
)
REPETITION = Rule(
    "repetition",
    "the same read brings the same kind of answer again and again",
    "reads must tolerate repetition: they are hedged, retried, and sent again on a new connection",
    "a share of the consultations fails as the answers do, and hedges do not help: {silence}",
)
CONCURRENCY = Rule(
    "concurrency",
    "answers are right for many calls at once",
    "any number of calls may be under way at once, each on a connection of its own",
    "under load payers get answers about others, or none: {silence}",
)
OVERLOAD = Rule(
    "overload",
    "a refusal for overload is one that the client respects",
    "429 or 503 means overloaded; Retry-After is a number of seconds, a date is ignored",
    "retries come at once instead of later, so that an overloaded service stays overloaded",
)
LATENCY = Rule(
    "latency",
    "9 of 10 answers come within the timeout",
    "an answer after the source's timeout is silence: TIMEOUT",
    "more than one consultation in ten goes without this answer: {silence}",
)
TAIL = Rule(
    "tail",
    "99 of 100 answers come within the timeout",
    "an answer after the source's timeout is silence: TIMEOUT",
    "more than one call in a hundred needs a hedge in time, or its consultation goes without: {silence}",
    advice=True,
)
BATCH = Rule(
    "batch",
    "a batch answers each request in its place",
    '{"requests": […]} gets {"answers": [{"ok": …} or {"error": {"status": 404}}]}, same order, same length',
    "one wrong part fails calls of other payers with it, or gives them each other's answers",
)
CLOSED_ORDER = Rule(
    "closed-order",
    "the result of a closed order is final",
    "after the end of an order its result is CLOSED, CLOSED_REFUNDING, PAID or REFUNDED, at every look",
    "payers of a closed order wait for ever, or are told to pay again",
)
DECISION = Rule(
    "decision",
    "risk decides",
    "200 with ACCEPT, REJECT or CHALLENGE and a decision_id; a challenge with CHALLENGE, and with no other",
    "{silence}",
)
CHALLENGE = Rule(
    "challenge",
    "a wrong answer to a challenge counts, and an unknown challenge is a 404",
    "verify says PASSED, FAILED or EXPIRED with attempts_left; 404 means that there is no such challenge",
    "payers are let through with any code, or locked out although they have tries left",
)
RESEND = Rule(
    "resend",
    "a code is sent again, or that is a 404",
    "200 with resend_after_s; 404, whatever its body, means that this challenge is not sent again",
    "payers whose code did not arrive cannot pay",
)
SUBMIT = Rule(
    "submit",
    "a payment is taken and answered",
    "200 with the payment; 409 ORDER_BUSY with the id of the live attempt, 422 KEY_REUSED. Anything else is an unknown "
    "outcome",
    "the payment may exist: the payer sees PROCESSING until a look-up settles it",
)
SAME_KEY = Rule(
    "same-key",
    "the same key and body are one payment",
    "two submits with one payment_id are one payment, also at the same time; each gets that payment",
    "the payer pays twice when a gateway repeats a request",
)
KEY_REUSED = Rule(
    "key-reused",
    "the same key with another body is refused",
    "a known payment_id with another fingerprint is 422 KEY_REUSED",
    "a changed request is answered with the payment of the first one: the payer is charged another sum than shown",
)
LOOK_UP = Rule(
    "look-up",
    "a look-up finds the payment as it was submitted",
    "GET /payments/{payment_id} has the same payment; fingerprint, order and amount, if reported, are those of the "
    "submit",
    "a payment without an answer is never settled: the payer waits, and the shop does not deliver",
)
ORDER_BUSY = Rule(
    "order-busy",
    "one order has one live attempt, and is paid once",
    "another payment of the order is 409 ORDER_BUSY with the live payment_id, or FAILED once the order is paid",
    "an order is paid twice from two tabs",
)
REVERSE = Rule(
    "reverse",
    "a reverse ends a live payment, once, and returns no money",
    "200 with the resulting payment: FAILED if it was live, unchanged if it had ended; may be repeated; the first "
    "reason is kept as reversal_reason",
    "a cancelled payment is still paid, or a paid one is reported as failed",
)
REVERSE_UNKNOWN = Rule(
    "reverse-unknown",
    "a reverse before the payment arrives is a 404 with a code",
    "404 with a code ends a payment that never arrived; without a code it proves nothing, and 200 invents a payment",
    "a cancelled payment stays open until its order expires",
)
LATE_ARRIVAL = Rule(
    "late-arrival",
    "a payment that arrives after its reverse is refused",
    "a reverse of an unknown payment refuses it for good (else set seals = false): FAILED, no money is taken",
    "the payer is charged for a payment that the shop and the payer saw cancelled",
)
