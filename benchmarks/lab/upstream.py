"""The lean upstream as a process on the load's core: its sources, paths, and control messages."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.lab import Lab
from benchmarks.lab.process import LOAD_CORE, process, python

# The sources that the upstream serves and the peers ask. A study configures these and no others, so
# that a source that is added later changes no result.
SOURCE_NAMES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")
STRAGGLING = 12
BEHAVE = "/-/behave"
COUNTS = "/-/seen"
# Takes exported spans, as a collector of OTLP/HTTP does.
TRACES = "/v1/traces"
FIRST_USER = 100_000
USERS = 2_000
# The paths that take batches, and the single request behind each element of a batch.
PROMOTIONS = "/members/{user_id}/promotions?merchant_id={merchant_id}&currency={currency}&value={value}"
BATCHES = {
    "order": ("/batch/orders", "/orders/{order_id}"),
    "merchant": ("/batch/merchants", "/merchants/{merchant_id}"),
    "member": ("/batch/members", "/members/{user_id}"),
    "card": ("/batch/cards", "/members/{user_id}/cards"),
    "balance": ("/batch/balances", "/members/{user_id}/balances"),
    "quota": ("/batch/quotas", "/members/{user_id}/quotas?currency={currency}"),
    "marketing": ("/batch/promotions", PROMOTIONS),
}
# Where the studies use batches. Merchants are few, and a cache does more for them.
BATCH_PATHS = {name: path for name, (path, _) in BATCHES.items() if name != "merchant"}


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By source; an unnamed source answers at once.

    `straggling_bps`: share of calls, in basis points, that take 12 times the delay. `hanging`:
    calls of these sources are never answered, even after the behaviour changes.
    """

    delay_ms: Mapping[str, float] = {}
    straggling_bps: Mapping[str, int] = {}
    hanging: tuple[str, ...] = ()


class HoldTimes(msgspec.Struct, frozen=True):
    """Actual delays, from the request read to the answer written."""

    answers: int
    p50_ms: float
    p99_ms: float
    most_ms: float


class UpstreamCounts(msgspec.Struct, frozen=True):
    """Counts since the last change of behaviour.

    `calls`: by source; a batch is one. `keys`: requests within batches. `cpu_s`: of the process's
    life. `connections`: open now; `opened`: in total. Both include the control connection.
    `exports`: requests with spans, in the process's life.
    """

    calls: Mapping[str, int]
    keys: Mapping[str, int]
    exports: int
    held: Mapping[str, HoldTimes]
    cpu_s: float
    connections: int
    opened: int

    @property
    def total(self) -> int:
        """Calls of all sources."""
        return sum(self.calls.values())


class LeanUpstream(NamedTuple):
    """`urls`: by source. Control calls block: not during load, except from another thread."""

    pid: int
    urls: Mapping[str, str]

    def behave(self, behaviour: Behaviour) -> None:
        """Set the behaviour and reset the counts."""
        self._control("POST", BEHAVE, msgspec.json.encode(behaviour))

    def seen(self) -> UpstreamCounts:
        return msgspec.json.decode(self._control("GET", COUNTS, b""), type=UpstreamCounts)

    @property
    def collector_url(self) -> str:
        """Where spans are exported to."""
        return next(iter(self.urls.values()))

    def _control(self, method: str, target: str, body: bytes) -> bytes:
        return exchange(int(self.collector_url.rpartition(":")[2]), method, target, body)


def exchange(port: int, method: str, target: str, body: bytes = b"") -> bytes:
    """The body of a response on its own connection. Raises ValueError unless its status is 200."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, target, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        response_body = answer.read()
    if answer.status != 200:
        raise ValueError(f"the answer to {target} is {answer.status}: {response_body.decode()}")
    return response_body


@contextmanager
def start_upstream(lab: Lab, *, users: int = USERS, behaviour: Behaviour | None = None) -> Iterator[LeanUpstream]:
    """Start it with `users` users, from `FIRST_USER` on."""
    log = Path(tempfile.mkdtemp(prefix="upstream-", dir=lab.directory)) / "log"
    with process(LOAD_CORE, *python("benchmarks.lean_upstream", "--users", str(users)), log=log) as child:
        ports = msgspec.json.decode(child.first_line, type=dict[str, int])
        started = LeanUpstream(child.pid, {name: f"http://127.0.0.1:{port}" for name, port in ports.items()})
        started.behave(behaviour or Behaviour())
        yield started
