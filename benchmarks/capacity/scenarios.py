"""The fleets to compare: everything on, nothing, and each mechanism left out once."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from benchmarks.capacity.simulated_caches import DEFAULTS, Mechanisms
from benchmarks.capacity.traffic import Traffic

# 20 million users at 100,000 consultations/s: all return within minutes.
FEW_USERS = 200
# Entries of a worker with about 700 MB more memory.
MANY_ENTRIES = 200_000

ON = Mechanisms()
AS_SHIPPED = Mechanisms(shared=False, batch=False)
NOTHING = Mechanisms(lifetimes={}, shared=False, batch=False, hedge=False)
# Without stale answers a late consultation waits for a new one. On an error the old one still
# serves.
NO_STALE = {name: replace(each, stale_s=0) for name, each in DEFAULTS.items()}


class Scenario(NamedTuple):
    label: str
    mechanisms: Mechanisms
    traffic: Traffic = Traffic()


EVERYTHING = Scenario("everything on", ON)
STICKY = Scenario("everything on, sticky by user", replace(ON, sticky=True))
# Reference for each mechanism, because the cost of reads and writes to Valkey would hide the rest.
LOCAL = Scenario("all but Valkey", replace(ON, shared=False))
LOCAL_STICKY = Scenario("all but Valkey, sticky by user", replace(LOCAL.mechanisms, sticky=True))
SHIPPED = Scenario("all but Valkey and batch: as shipped", AS_SHIPPED)
UNCACHED = Scenario("all but Valkey and caches", replace(LOCAL.mechanisms, lifetimes={}))
UNHEDGED = Scenario("all but Valkey and hedge", replace(LOCAL.mechanisms, hedge=False))
WAITING = Scenario("all but Valkey and stale-while-revalidate", replace(LOCAL.mechanisms, lifetimes=NO_STALE))
APART = Scenario("all but Valkey and single flight", replace(LOCAL.mechanisms, single_flight=False))
BARE = Scenario("nothing: eight live calls", NOTHING)

SCENARIOS = (
    EVERYTHING,
    STICKY,
    Scenario("everything on, 20 million users", ON, Traffic(users_each=FEW_USERS)),
    LOCAL,
    LOCAL_STICKY,
    Scenario(
        f"all but Valkey, sticky, {MANY_ENTRIES:,} answers a worker",
        replace(LOCAL_STICKY.mechanisms, entries=MANY_ENTRIES),
    ),
    SHIPPED,
    UNCACHED,
    WAITING,
    APART,
    UNHEDGED,
    BARE,
)
# Scenarios for all rates.
FOLLOWED = (EVERYTHING, LOCAL, SHIPPED, BARE)
# By the difference from all but Valkey.
ABLATED = {
    "without batch": SHIPPED,
    "without caches": UNCACHED,
    "without stale-while-revalidate": WAITING,
    "without single flight": APART,
    "without hedge": UNHEDGED,
    "with sticky routing": LOCAL_STICKY,
    "with Valkey": EVERYTHING,
}
