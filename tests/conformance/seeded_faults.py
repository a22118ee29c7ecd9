"""Faults that a service may have, each as a change of the sandbox's right answers."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from .spoiled_service import Answer, Received, Spoil


class SeededFault(Struct):
    """`rule`: the one that has to find it. `says`: part of what the finding says. `advice`: it is
    a warning.
    """

    name: str
    source: str
    rule: str
    says: str
    spoil: Spoil
    advice: bool = False
    idle_s: float = 0.06
    timeout_ms: int | None = None
    calls: int = 4


def row_of(name: str, **fields: Any) -> Spoil:
    """Change the first row of a list; None takes a field away."""

    def spoil(received: Received, answer: Answer) -> Answer:
        if answer.status != 200 or not answer.json.get(name):
            return answer
        body = answer.json
        first = {**body[name][0], **fields}
        body[name][0] = {key: value for key, value in first.items() if value is not None}
        return answer.put(body)

    return spoil


def field(**fields: Any) -> Spoil:
    def spoil(received: Received, answer: Answer) -> Answer:
        return answer.put({**answer.json, **fields}) if answer.status == 200 else answer

    return spoil


def body(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda received, answer: answer.put(change(answer.body)) if answer.status == 200 else answer


def absent(status: int, content: bytes | dict[str, Any]) -> Spoil:
    """Another answer in the place of a 404."""
    return lambda received, answer: answer.put(content, status) if answer.status == 404 else answer


def head(**headers: str) -> Spoil:
    def spoil(received: Received, answer: Answer) -> Answer:
        answer.headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        return answer

    return spoil


def if_asked(condition: Callable[[Received], bool], status: int, content: Any) -> Spoil:
    return lambda received, answer: answer.put(content, status) if condition(received) else answer


def to(method: str, ending: str, change: Spoil) -> Spoil:
    """Change the answers to one kind of request."""

    def spoil(received: Received, answer: Answer) -> Answer:
        matches = received.method == method and received.target.endswith(ending)
        return change(received, answer) if matches else answer

    return spoil


def _duplicate(name: str) -> Spoil:
    def spoil(received: Received, answer: Answer) -> Answer:
        if answer.status != 200 or not answer.json.get(name):
            return answer
        return answer.put({**answer.json, name: [*answer.json[name], answer.json[name][0]]})

    return spoil


def _compressed(received: Received, answer: Answer) -> Answer:
    answer.headers["Content-Encoding"] = "gzip"
    return answer.put(gzip.compress(answer.body))


def _without_length(received: Received, answer: Answer) -> Answer:
    del answer.headers["Content-Length"]
    answer.ends = True
    return answer


def _length(by: int) -> Spoil:
    def spoil(received: Received, answer: Answer) -> Answer:
        answer.headers["Content-Length"] = str(len(answer.body) + by)
        return answer

    return spoil


def _closing(received: Received, answer: Answer) -> Answer:
    answer.headers["Connection"] = "close"
    answer.ends = True
    return answer


def _http_1_0(received: Received, answer: Answer) -> Answer:
    answer.version = "1.0"
    answer.ends = True
    return answer


def _silently_closing(received: Received, answer: Answer) -> Answer:
    answer.ends = True
    return answer


def _silent(received: Received, answer: Answer) -> Answer:
    answer.silent = True
    return answer


def _slow(received: Received, answer: Answer) -> Answer:
    answer.delay_s = 0.02
    return answer


def _slow_once(received: Received, answer: Answer) -> Answer:
    answer.delay_s = 0.6 if received.number == 10 else 0
    return answer


def _fails_now_and_then(received: Received, answer: Answer) -> Answer:
    return answer.put({"code": "INTERNAL"}, 500) if received.number > 3 and received.number % 3 == 0 else answer


class _Mixed:
    """Answers with the last user's cards when another request is under way."""

    def __init__(self) -> None:
        self.last = b""

    def __call__(self, received: Received, answer: Answer) -> Answer:
        if received.under_way and self.last:
            return answer.put(self.last, 200)
        if answer.status == 200:
            self.last = answer.body
        if received.number > 20:
            answer.delay_s = 0.005
        return answer


def _overloaded(received: Received, answer: Answer) -> Answer:
    answer.delay_s = 0.002 if received.number > 20 else 0
    if not received.under_way:
        return answer
    answer.headers["Retry-After"] = "Mon, 30 Nov 2026 12:00:00 GMT"
    return answer.put({"code": "OVERLOADED"}, 503)


def _swapped(received: Received, answer: Answer) -> Answer:
    return answer.put({"answers": answer.json["answers"][::-1]})


def _shortened(received: Received, answer: Answer) -> Answer:
    return answer.put({"answers": answer.json["answers"][:-1]})


def _whole_404(received: Received, answer: Answer) -> Answer:
    return answer.put({"code": "NOT_FOUND"}, 404)


class _Repeated:
    """Changes answers about a payment that was answered before."""

    def __init__(self, change: Spoil) -> None:
        self.change = change
        self.submitted: set[str] = set()

    def __call__(self, received: Received, answer: Answer) -> Answer:
        key = received.headers.get("Idempotency-Key", "")
        if key and answer.status == 200 and key not in self.submitted:
            self.submitted.add(key)
            return answer
        return self.change(received, answer) if key else answer


def _other_payment(received: Received, answer: Answer) -> Answer:
    return answer.put({**answer.json, "payment_id": "pay_other"}) if answer.status == 200 else answer


def _accepts_all(received: Received, answer: Answer) -> Answer:
    if answer.status in (409, 422):
        return answer.put({"payment_id": received.json["payment_id"], "status": "PROCESSING"}, 200)
    return answer


def _only(status: int, change: Spoil) -> Spoil:
    return lambda received, answer: change(received, answer) if answer.status == status else answer


def _failed_as(status: str) -> Spoil:
    def spoil(received: Received, answer: Answer) -> Answer:
        if answer.status != 200 or answer.json.get("status") != "FAILED":
            return answer
        kept = {name: value for name, value in answer.json.items() if name != "failure"}
        return answer.put({**kept, "status": status})

    return spoil


def _last_reason(received: Received, answer: Answer) -> Answer:
    return answer.put({**answer.json, "reversal_reason": received.json["reason"]}) if answer.status == 200 else answer


def _reversed_unknown(received: Received, answer: Answer) -> Answer:
    payment_id = received.target.split("/")[2]
    return answer.put({"payment_id": payment_id, "status": "FAILED"}, 200)


_submits, _looks, _reverses = ("POST", "/payments"), ("GET", ""), ("POST", "/reverse")
_envelope = {"code": 0, "data": {}}
CARD, ORDER, QUOTA, CHANNEL, ACQUIRER, ENGINE, RISK = (
    "card", "order", "quota", "channel", "acquirer", "engine", "risk",
)  # fmt: skip

SEEDED_FAULTS = [
    SeededFault("a field is missing", CARD, "schema", "cards[0].bank is missing", row_of("cards", bank=None)),
    SeededFault("a number for a text", CARD, "schema", "cards[0].last4 is an integer", row_of("cards", last4=1014)),
    SeededFault("null for a list", CARD, "schema", "agreements is null", field(agreements=None)),
    SeededFault("an unknown state", CARD, "schema", "it has DEBIT, CREDIT", row_of("cards", type="PREPAID")),
    SeededFault(
        "an amount as a text",
        ORDER,
        "schema",
        "amount.value is a text",
        field(amount={"currency": "CNY", "value": "1"}),
    ),
    SeededFault("a local time", ORDER, "schema", "expires_at is a text", field(expires_at="2031-01-01T00:00:00")),
    SeededFault("an envelope", CARD, "schema", "user_id is missing", lambda received, answer: answer.put(_envelope)),
    SeededFault("a byte order mark", CARD, "schema", "no JSON", body(lambda content: b"\xef\xbb\xbf" + content)),
    SeededFault(
        "another encoding", CARD, "schema", "no JSON", body(lambda content: content.decode().encode("gbk", "replace"))
    ),
    SeededFault("a row twice", CARD, "rows", "two cards with one card_id", _duplicate("cards")),
    SeededFault("a channel twice", CHANNEL, "rows", "two channels", _duplicate("channels")),
    SeededFault(
        "another currency", QUOTA, "rows", "another currency", row_of("quotas", single={"currency": "USD", "value": 1})
    ),
    SeededFault("another user", CARD, "identity", "another user", field(user_id="u_2")),
    SeededFault("another order", ACQUIRER, "identity", "another order", field(order_id="o_2")),
    SeededFault(
        "an unknown status of a row", CARD, "values", "status is 'LOST'", row_of("cards", status="LOST"), advice=True
    ),
    SeededFault(
        "a misspelled field",
        CARD,
        "spelling",
        "did you mean 'single_max'",
        row_of("agreements", single_maxx=1),
        advice=True,
    ),
    SeededFault("500 for an unknown user", CARD, "not-found", "status 500", absent(500, {"code": "INTERNAL"})),
    SeededFault("400 for an unknown user", CARD, "not-found", "status 400", absent(400, {"code": "NO_USER"})),
    SeededFault("a page as a 404", CARD, "not-found", "not a JSON object", absent(404, b"<html>")),
    SeededFault("a 404 of a gateway", CARD, "not-found", "a code other than", absent(404, {"code": "NO_ROUTE"})),
    SeededFault("an invented order", ORDER, "schema", "order_id is missing", absent(200, {})),
    SeededFault(
        "an invented result",
        ACQUIRER,
        "invented",
        "cannot exist",
        lambda received, answer: absent(200, {"order_id": received.target.split("/")[2], "status": "PENDING"})(
            received, answer
        ),
    ),
    SeededFault(
        "a narrow id",
        CARD,
        "ids",
        "status 400",
        if_asked(lambda received: "~" in received.target, 400, {"code": "BAD_ID"}),
    ),
    SeededFault(
        "any path is known",
        CARD,
        "unknown-path",
        "no such subject",
        if_asked(lambda received: "conform/" in received.target, 404, b""),
        advice=True,
    ),
    SeededFault(
        "a strict query",
        CARD,
        "tolerance",
        "status 400",
        if_asked(lambda received: "?" in received.target, 400, {"code": "BAD"}),
    ),
    SeededFault(
        "a strict header",
        CARD,
        "tolerance",
        "status 431",
        if_asked(lambda received: "X-Conform" in received.headers, 431, {"code": "BAD"}),
    ),
    SeededFault("a page's type", CARD, "content-type", "another Content-Type", head(Content_Type="text/html")),
    SeededFault(
        "another charset",
        CARD,
        "content-type",
        "another Content-Type",
        head(Content_Type="application/json; charset=gbk"),
    ),
    SeededFault("compressed", CARD, "framing", "content encoding", _compressed),
    SeededFault("no length", CARD, "framing", "only a closed connection", _without_length),
    SeededFault("too short a length", CARD, "framing", "bytes after the answer", _length(-1)),
    SeededFault("too great a length", CARD, "answers", "no complete answer", _length(+9)),
    SeededFault("closed each time", CARD, "keep-alive", "Connection: close", _closing),
    SeededFault("another version", CARD, "keep-alive", "HTTP/1.0", _http_1_0),
    SeededFault("closed silently", CARD, "closing", "without Connection: close", _silently_closing),
    SeededFault("a short keep-alive", CARD, "idle", "announces 5 s", head(Keep_Alive="timeout=5"), advice=True),
    SeededFault(
        "a short deadline refused",
        CARD,
        "deadline",
        "status 400",
        if_asked(lambda received: received.headers.get("X-Deadline-Ms") == "1", 400, {"code": "BAD"}),
    ),
    SeededFault(
        "nothing in a short time",
        CARD,
        "deadline",
        "404 for the subject",
        if_asked(lambda received: received.headers.get("X-Deadline-Ms") == "1", 404, {"code": "NOT_FOUND"}),
    ),
    SeededFault("failing now and then", CARD, "repetition", "status 500", _fails_now_and_then),
    SeededFault("mixed up", CARD, "concurrency", "another user", _Mixed()),
    SeededFault("a date to retry after", CARD, "overload", "no number of seconds", _overloaded),
    SeededFault("slow", CARD, "latency", "after the timeout of 10 ms", _slow, timeout_ms=10),
    SeededFault("slow once", CARD, "tail", "1 of 12 answers after", _slow_once, advice=True, timeout_ms=300, calls=12),
    SeededFault("a redirect", CARD, "answers", "status 302", lambda received, answer: answer.put(b"", 302)),
    SeededFault(
        "created",
        CARD,
        "answers",
        "status 201",
        lambda received, answer: answer.put(answer.body, 201) if answer.status == 200 else answer,
    ),
    SeededFault("silent", CARD, "answers", "given up", _silent),
    SeededFault("a batch in another order", CARD, "batch", "part", to("POST", "/cards", _swapped)),
    SeededFault("a short batch", CARD, "batch", "answers to", to("POST", "/cards", _shortened)),
    SeededFault(
        "a batch of few",
        CARD,
        "batch",
        "status 413",
        if_asked(lambda received: len(received.body) > 500, 413, {"code": "TOO_MANY"}),
    ),
    SeededFault("a batch without a user", CARD, "batch", "status 404", to("POST", "/cards", _whole_404)),
    SeededFault("a closed order is open", ACQUIRER, "closed-order", "PENDING", field(status="PENDING")),
    SeededFault(
        "a second payment for one key", ENGINE, "same-key", "another payment", to(*_submits, _Repeated(_other_payment))
    ),
    SeededFault(
        "a key is used up",
        ENGINE,
        "same-key",
        "answered 409",
        to(
            *_submits,
            _Repeated(
                _only(200, lambda received, answer: answer.put({"code": "DUPLICATE", "payment_id": "pay_1"}, 409))
            ),
        ),
    ),
    SeededFault(
        "any body for one key", ENGINE, "key-reused", "another fingerprint", to(*_submits, _only(422, _accepts_all))
    ),
    SeededFault(
        "two payments of one order", ENGINE, "order-busy", "a second payment", to(*_submits, _only(409, _accepts_all))
    ),
    SeededFault(
        "a submit that is accepted",
        ENGINE,
        "submit",
        "status 202",
        to(*_submits, _only(200, lambda received, answer: answer.put(answer.body, 202))),
    ),
    SeededFault(
        "a reverse without a code", ENGINE, "reverse-unknown", "code", to(*_reverses, _only(404, absent(404, {})))
    ),
    SeededFault(
        "a reverse that invents",
        ENGINE,
        "reverse-unknown",
        "never arrived",
        to(*_reverses, _only(404, _reversed_unknown)),
    ),
    SeededFault(
        "a late payment is taken", ENGINE, "late-arrival", "PROCESSING", to(*_submits, _failed_as("PROCESSING"))
    ),
    SeededFault(
        "a reverse that does nothing", ENGINE, "reverse", "PROCESSING after", to(*_reverses, _failed_as("PROCESSING"))
    ),
    SeededFault("the last reason", ENGINE, "reverse", "reversal_reason", to(*_reverses, _last_reason)),
    SeededFault(
        "a payment that is lost",
        ENGINE,
        "look-up",
        "404 for a payment",
        to(*_looks, _only(200, lambda received, answer: answer.put({"code": "NOT_FOUND"}, 404))),
    ),
    SeededFault("another fingerprint", ENGINE, "look-up", "fingerprint", to(*_looks, field(fingerprint="f"))),
    SeededFault(
        "a failure with an action",
        ENGINE,
        "schema",
        "without the status FAILED",
        to(*_submits, field(failure={"code": "X", "text": ""}, status="PROCESSING")),
    ),
    SeededFault(
        "a decision without an id",
        RISK,
        "schema",
        "decision_id is missing",
        to("POST", "/decisions", lambda received, answer: answer.put({"decision": "ACCEPT"})),
    ),
    SeededFault(
        "a strict decision",
        RISK,
        "tolerance",
        "an unknown field",
        if_asked(lambda received: b"conform_unknown" in received.body, 400, {"code": "BAD"}),
    ),
    SeededFault(
        "a strict submit",
        ENGINE,
        "tolerance",
        "an unknown field",
        if_asked(lambda received: b"conform_unknown" in received.body, 400, {"code": "BAD"}),
    ),
    SeededFault(
        "no decision",
        RISK,
        "decision",
        "status 404",
        to("POST", "/decisions", lambda received, answer: answer.put({"code": "NOT_FOUND"}, 404)),
    ),
    SeededFault(
        "a challenge with an acceptance",
        RISK,
        "schema",
        "a challenge belongs",
        to("POST", "/decisions", field(decision="ACCEPT")),
    ),
    SeededFault(
        "any answer passes", RISK, "challenge", "a wrong answer passes", to("POST", "/verify", field(status="PASSED"))
    ),
    SeededFault(
        "attempts without an end", RISK, "challenge", "as many attempts", to("POST", "/verify", field(attempts_left=3))
    ),
    SeededFault(
        "an unknown challenge passes",
        RISK,
        "challenge",
        "does not exist",
        to("POST", "/verify", absent(200, {"status": "PASSED", "attempts_left": 0})),
    ),
    SeededFault(
        "no challenge is sent again",
        RISK,
        "resend",
        "unknown challenge",
        to("POST", "/resend", absent(200, {"resend_after_s": 60})),
    ),
]
