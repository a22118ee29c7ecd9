"""Consultations of seeded users and orders as HTTP requests, and checks of their answers."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from benchmarks.lab.upstream import FIRST_USER, SOURCE_NAMES
from cashier.sandbox import World


def consultations(users: int, headers: Iterable[str] = ()) -> list[bytes]:
    """One request for each user: `u_<n>` consults order `o_<n>`. `headers`: additional lines."""
    crowd = World().population.generated
    head = "".join(
        f"{line}\r\n"
        for line in ("POST /v1/consult HTTP/1.1", "Host: cashier", "Content-Type: application/json", *headers)
    )
    bodies = (msgspec.json.encode(crowd.consult_request(n)) for n in range(FIRST_USER, FIRST_USER + users))
    return [b"%bContent-Length: %d\r\n\r\n%b" % (head.encode(), len(body), body) for body in bodies]


def check_consultation(body: bytes) -> str | None:
    """What is wrong with an answer of cashier: it needs all sources and payment methods."""
    answer = msgspec.json.decode(body)
    silent = [report["name"] for report in answer["sources"] if report["status"] not in {"FRESH", "CACHED", "STALE"}]
    if silent or len(answer["sources"]) != len(SOURCE_NAMES):
        return f"without {', '.join(silent) or 'some of its sources'}"
    return None if answer["payable"] and answer["methods"] else "without a payment method"


def check_bare_merge(body: bytes) -> str | None:
    """What is wrong with a bare merge: it needs a non-empty object from each source."""
    answer = msgspec.json.decode(body)
    missing = [name for name in SOURCE_NAMES if not isinstance(answer.get(name), dict) or not answer[name]]
    return f"without {', '.join(missing)}" if missing else None
