"""The programs to compare: cashier and the installed peers."""

from __future__ import annotations

from collections.abc import Container
from contextlib import ExitStack
from typing import NamedTuple

from benchmarks.lab import Lab
from benchmarks.lab.load import Check
from benchmarks.lab.requests import check_bare_merge, check_consultation
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.upstream import LeanUpstream
from benchmarks.peers import PEERS

OURS = "cashier"
OURS_CACHED = "cashier_cached"
_TITLES = {OURS: "cashier", OURS_CACHED: "cashier, default caches"}


class Program(NamedTuple):
    """`name`: as in the keys of a finding. `check`: for its answers."""

    name: str
    title: str
    caches: bool
    check: Check
    served: Served

    @property
    def ours(self) -> bool:
        return self.name in _TITLES


def start_programs(
    lab: Lab, upstream: LeanUpstream, running: ExitStack, names: Container[str] | None = None
) -> list[Program]:
    """Start cashier live, cashier with its default caches, and every installed peer.

    `names`: only these.
    """
    programs = []
    for name, title in _TITLES.items():
        if names is None or name in names:
            cached = name == OURS_CACHED
            served = running.enter_context(start_service(lab, upstream.urls, cached=cached))
            programs.append(Program(name, title, cached, check_consultation, served))
    for peer in PEERS:
        if names is not None and peer.name not in names:
            continue
        if why := peer.absent():
            lab.skip(f"{peer.title} is absent: {why}")
            continue
        try:
            served = running.enter_context(peer.start(lab, upstream.urls))
        except (OSError, RuntimeError) as error:
            lab.skip(f"{peer.title} did not start: {error}")
            continue
        programs.append(Program(peer.name, peer.title, peer.caches, check_bare_merge, served))
    return programs
