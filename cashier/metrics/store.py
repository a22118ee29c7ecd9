"""The store of one process: its children, and the memory that holds their cells.

Anonymous memory for an embedding program, a file for a worker of `cashier serve`, which the
operations port reads. One thread writes; others may read.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import structlog

from cashier.metrics import layout
from cashier.metrics.exposition import render
from cashier.metrics.families import BUCKET_BOUNDS_NS, FAMILIES, Family, MetricKind
from cashier.metrics.snapshot import HistogramValue, Snapshot

_log = structlog.get_logger("cashier")

OTHER = "other"
# Longer label values are cut: they bound the memory of the directory.
LONGEST_LABEL = 200
# The largest power of two that a cell holds: a float has it exactly.
_LARGEST = 1 << 62
# Cells that no entry names: they take what a full store cannot hold.
_UNNAMED_CELLS = len(BUCKET_BOUNDS_NS) + 2


class Child:
    """One set of label values of a family. Hot code adds to `cells[index]` itself."""

    __slots__ = ("cells", "index", "scale")

    def __init__(self, cells: memoryview, index: int, scale: int) -> None:
        self.cells = cells
        self.index = index
        self.scale = scale


class Counter(Child):
    __slots__ = ()

    def add(self, number: int = 1) -> None:
        self.cells[self.index] += number

    @property
    def value(self) -> int:
        return self.cells[self.index]

    def __repr__(self) -> str:
        return f"<Counter {self.value}>"


class Gauge(Child):
    """`set` takes the unit that the family's name says, such as seconds."""

    __slots__ = ()

    def set(self, number: float) -> None:
        self.cells[self.index] = round(max(-_LARGEST, min(_LARGEST, number * self.scale)))

    @property
    def value(self) -> float:
        return self.cells[self.index] if self.scale == 1 else self.cells[self.index] / self.scale

    def __repr__(self) -> str:
        return f"<Gauge {self.value}>"


class Histogram(Child):
    __slots__ = ()

    def record(self, ns: int) -> None:
        cells, index = self.cells, self.index
        cells[index + bisect_left(BUCKET_BOUNDS_NS, ns)] += 1
        cells[index + _SUM_AT] += ns

    @property
    def value(self) -> HistogramValue:
        cells = self.cells[self.index : self.index + _SUM_AT + 1].tolist()
        return HistogramValue(tuple(cells[:-1]), cells[-1])

    def __repr__(self) -> str:
        return f"<Histogram of {self.value.count}>"


_SUM_AT = len(BUCKET_BOUNDS_NS) + 1
_Child = TypeVar("_Child", bound=Child)


class Store:
    """The metrics of this process. Keep a child where it is counted: finding it takes a look-up."""

    def __init__(self, memory: mmap.mmap | None = None, *, enabled: bool = True) -> None:
        """Anonymous without `memory`. A forked process then has a copy of its own.

        Not `enabled`: children have no names, so the snapshot stays empty. What costs more than an
        increment should not be computed for it.
        """
        self.enabled = enabled
        # Whether another process reads it; else gauges are set when this one does.
        self.is_shared = memory is not None
        self.before_snapshot: list[Callable[[], None]] = []
        # Anonymous memory costs nothing until a page of it is written.
        self._memory = memoryview(memory or mmap.mmap(-1, layout.SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._cells = self._memory[layout.CELLS_AT : layout.DIRECTORY_AT].cast("q")
        self._published = self._memory[layout.PUBLISHED_AT : layout.PUBLISHED_AT + 8].cast("q")
        layout.write_header(self._memory)
        # By family, then by labels as named in the directory.
        self._children: dict[str, dict[tuple[str, ...], Any]] = {}
        self._used_cells = _UNNAMED_CELLS
        self._is_full = False

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """A store in a new file, which is locked until this process ends. Raises OSError.

        The file gets its name when it is whole and locked: one without a lock is that of a process
        that has ended.
        """
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.unfinished")
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # The mapping has a duplicate of the descriptor, so the lock lives as long.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A write to a page that the file system cannot provide kills the process.
            os.posix_fallocate(descriptor, 0, layout.SIZE)
            store = cls(mmap.mmap(descriptor, layout.SIZE))
            unfinished.rename(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return store

    def counter(self, name: str, *labels: str) -> Counter:
        """The child of these label values, always the same. KeyError for an unknown name.

        ValueError for another kind of metric, or another number of labels.
        """
        return self._child(Counter, MetricKind.COUNTER, name, labels)

    def gauge(self, name: str, *labels: str) -> Gauge:
        """As `counter`."""
        return self._child(Gauge, MetricKind.GAUGE, name, labels)

    def histogram(self, name: str, *labels: str) -> Histogram:
        """As `counter`."""
        return self._child(Histogram, MetricKind.HISTOGRAM, name, labels)

    def snapshot(self) -> Snapshot:
        """Set the gauges and read all. Belongs to the thread that counts: gauges read its state."""
        for set_gauges in self.before_snapshot:
            set_gauges()
        directory = self._memory[layout.DIRECTORY_AT : layout.DIRECTORY_AT + self._published[0]]
        return layout.snapshot_of(layout.entries_in(directory.tobytes()), self._cells[: self._used_cells])

    def render(self) -> str:
        """The snapshot in Prometheus' text format."""
        return render(self.snapshot())

    def _child(self, cls: type[_Child], kind: MetricKind, name: str, labels: tuple[str, ...]) -> _Child:
        child: _Child | None = self._children.setdefault(name, {}).get(labels)
        if child is None or not isinstance(child, cls):
            family = FAMILIES[name]
            if family.kind is not kind or len(labels) != len(family.labels):
                raise ValueError(f"{name} is a {family.kind} with the labels {family.labels}, not a {kind} of {labels}")
            child = self._bounded(cls, family, tuple(map(_clean, labels)))
        return child

    def _bounded(self, cls: type[_Child], family: Family, labels: tuple[str, ...]) -> _Child:
        """The child of clean labels, or that of `other` if the family has enough children."""
        children = self._children[family.name]
        if labels not in children and len(children) >= family.most_children:
            labels = (OTHER,) * len(labels)
        if labels not in children:
            children[labels] = cls(self._cells, self._added(family, labels), family.scale)
        child: _Child = children[labels]
        return child

    def _added(self, family: Family, labels: tuple[str, ...]) -> int:
        """The index of the first cell of a new child."""
        if not self.enabled:
            return 0
        entry = layout.Entry(family.name, labels, self._used_cells, family.cells)
        encoded = layout.encoded(entry)
        end = self._published[0] + len(encoded)
        if end > layout.DIRECTORY_BYTES or entry.first + entry.cells > layout.CELLS:
            if not self._is_full:
                self._is_full = True
                _log.warning("the store of metrics is full: new label values are not counted", metric=family.name)
            return 0
        at = layout.DIRECTORY_AT + self._published[0]
        self._memory[at : at + len(encoded)] = encoded
        self._used_cells += family.cells
        # Last: a reader believes the directory up to here.
        self._published[0] = end
        return entry.first


def _clean(label: str) -> str:
    """A label that every parser takes: no lone surrogate, no NUL, not endless."""
    return label[:LONGEST_LABEL].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
