"""`cashier` with the times of certain points of every consultation: for the study `timeline`.

`python -m benchmarks.lab.marked_service serve …` takes the arguments of `cashier`. Some functions
are wrapped before it starts. At its end it writes the marks to the file that `MARKS_FILE` names, as
a JSON list of `[point, port, ns]` in the order of time. It must be the only worker. A mark costs
about 0.3 µs.
"""

from __future__ import annotations

import atexit
import os
import pkgutil
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

FILE = "MARKS_FILE"


class Point(StrEnum):
    """In the order of a consultation. An ask and an answer have the port of their source."""

    READ = "read"
    ASKING = "asking"
    ASK = "ask"
    ASKED = "asked"
    ANSWER = "answer"
    TAKEN = "taken"
    AWAKE = "awake"
    CHECKED = "checked"
    ASSEMBLED = "assembled"
    RANKED = "ranked"
    SIGNED = "signed"
    ENCODING = "encoding"
    ENCODED = "encoded"
    WRITING = "writing"


class MarkedFunction(NamedTuple):
    """`path`: module, colon, name. `entry`, `exit`: the points, if any. `source`: with its port."""

    path: str
    entry: Point | None = None
    exit: Point | None = None
    source: bool = False

    def place(self) -> tuple[Any, str]:
        """The module or class, and the name in it."""
        module, _, name = self.path.partition(":")
        owner, _, last = name.rpartition(".")
        return pkgutil.resolve_name(f"{module}:{owner}" if owner else module), last


MARKED = (
    MarkedFunction("cashier.web.connection:ClientConnection.data_received", entry=Point.READ),
    MarkedFunction("cashier.fanout.scatter:Scatter.start", entry=Point.ASKING, exit=Point.ASKED),
    MarkedFunction("cashier.wire.host_pool:UpstreamConnection.send", exit=Point.ASK, source=True),
    MarkedFunction(
        "cashier.wire.host_pool:UpstreamConnection.data_received", entry=Point.ANSWER, exit=Point.TAKEN, source=True
    ),
    MarkedFunction("cashier.fanout.scatter:Scatter.result", entry=Point.AWAKE),
    MarkedFunction("cashier.consultation.flow:ConsultFlow._payable", entry=Point.CHECKED, exit=Point.SIGNED),
    MarkedFunction("cashier.consultation.flow:assemble", exit=Point.ASSEMBLED),
    MarkedFunction("cashier.consultation.flow:rank_offers", exit=Point.RANKED),
    MarkedFunction("cashier.web.consult_endpoint:encode_consultation", entry=Point.ENCODING, exit=Point.ENCODED),
    MarkedFunction("cashier.web.exchange:Exchange._write", entry=Point.WRITING),
)

Mark = tuple[Point, int, int]
Marks = list[Mark]


def install(marks: Marks, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
    """Wrap the functions. Raises AttributeError if one has another name now."""
    for marked in MARKED:
        owner, name = marked.place()
        setattr(owner, name, _marking(getattr(owner, name), marked, marks, clock_ns))


def _marking(
    function: Callable[..., Any], marked: MarkedFunction, marks: Marks, clock_ns: Callable[[], int]
) -> Callable[..., Any]:
    entry, leave, source = marked.entry, marked.exit, marked.source

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        port = args[0].pool.address.port if source else 0
        if entry is not None:
            marks.append((entry, port, clock_ns()))
        result = function(*args, **kwargs)
        if leave is not None:
            marks.append((leave, port, clock_ns()))
        return result

    return call


def main() -> None:
    from cashier.cli.commands import main as cashier  # noqa: PLC0415 - it imports what is wrapped

    marks: Marks = []
    install(marks)
    file = Path(os.environ[FILE])
    atexit.register(lambda: file.write_bytes(msgspec.json.encode(marks)))
    sys.argv[0] = "cashier"
    cashier()


if __name__ == "__main__":
    main()
