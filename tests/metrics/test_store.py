"""Children of a store, their bounds, and what a reader of the file gets."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from cashier.metrics import layout
from cashier.metrics.families import BUCKET_BOUNDS_NS, FAMILIES
from cashier.metrics.reader import StoreReader
from cashier.metrics.snapshot import HistogramValue, Snapshot, merged, without_gauges
from cashier.metrics.store import LONGEST_LABEL, OTHER, Store

SHED = "cashier_shed_total"
LAG = "cashier_payment_unknown_oldest_seconds"
WAIT = "cashier_queue_wait_seconds"
IN_FLIGHT = "cashier_in_flight"


def test_the_same_labels_are_the_same_child() -> None:
    store = Store()
    store.counter(SHED, "low", "3").add()
    store.counter(SHED, "low", "3").add(2)
    store.counter(SHED, "low", "4").add()
    assert store.snapshot() == {SHED: {("low", "3"): 3, ("low", "4"): 1}}


def test_a_gauge_takes_the_unit_of_its_name() -> None:
    store = Store()
    gauge = store.gauge(LAG)
    gauge.set(0.0015)
    assert gauge.value == store.snapshot()[LAG][()] == 0.0015
    assert gauge.cells[gauge.index] == 1_500_000
    gauge.set(1e300)
    assert gauge.value > 1e9


def test_a_value_on_a_bound_is_within_the_bucket() -> None:
    store = Store()
    histogram = store.histogram(WAIT)
    histogram.record(BUCKET_BOUNDS_NS[1])
    histogram.record(BUCKET_BOUNDS_NS[1] + 1)
    histogram.record(BUCKET_BOUNDS_NS[-1] + 1)
    assert histogram.value.counts[1:3] == (1, 1)
    assert histogram.value.counts[-1] == 1
    assert histogram.value.sum_ns == 2 * BUCKET_BOUNDS_NS[1] + BUCKET_BOUNDS_NS[-1] + 2
    assert store.snapshot()[WAIT][()] == histogram.value


@pytest.mark.parametrize(
    ("ask", "labels"), [("gauge", ("low", "3")), ("counter", ("low",)), ("counter", ("low", "3", "4"))]
)
def test_another_kind_or_number_of_labels_is_a_bug(ask: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="labels"):
        getattr(Store(), ask)(SHED, *labels)


def test_beyond_the_bound_every_child_is_other() -> None:
    store, most = Store(), FAMILIES[SHED].most_children
    for number in range(most + 5):
        store.counter(SHED, "low", str(number)).add()
    counts = store.snapshot()[SHED]
    assert len(counts) == most + 1
    assert counts[OTHER, OTHER] == 5


def test_labels_beyond_the_bound_are_not_remembered() -> None:
    store = Store()
    tracemalloc.start()
    try:
        for number in range(20_000):
            store.counter(SHED, f"low-{number}\0", "x" * 300).add()
        assert tracemalloc.get_traced_memory()[0] < 300_000
    finally:
        tracemalloc.stop()
    assert sum(map(int, store.snapshot()[SHED].values())) == 20_000  # type: ignore[arg-type]


def test_every_family_fits_with_as_many_children_as_it_may_have() -> None:
    cells = sum((family.most_children + 1) * family.cells for family in FAMILIES.values() if family.labels)
    assert cells < layout.CELLS / 2
    store = Store()
    for family in FAMILIES.values():
        for number in range(family.most_children + 1 if family.labels else 1):
            labels = [f"{label}-of-the-child-{number}" for label in family.labels]
            getattr(store, family.kind)(family.name, *labels)
    assert sum(map(len, store.snapshot().values())) == sum(
        family.most_children + 1 if family.labels else 1 for family in FAMILIES.values()
    )


def test_a_full_directory_counts_on_without_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "DIRECTORY_BYTES", 60)
    store = Store.create(tmp_path / "1.metrics")
    store.counter(SHED, "low", "1").add()
    for number in range(10):
        store.counter(SHED, "x" * 90, str(number)).add()
        store.histogram(WAIT).record(5)
    store.counter(SHED, "low", "1").add()
    assert read(tmp_path / "1.metrics") == store.snapshot() == {SHED: {("low", "1"): 2}}


def test_long_and_unencodable_labels_are_cut_and_cleaned(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "1.metrics")
    store.counter(SHED, "\ud800\0", "y" * 10_000).add()
    assert read(tmp_path / "1.metrics") == {SHED: {("?\ufffd", "y" * LONGEST_LABEL): 1}}


def test_a_file_reads_as_its_store_and_grows(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "1.metrics")
    reader = StoreReader(tmp_path / "1.metrics")
    assert reader.read() == read(tmp_path / "1.metrics") == {}
    store.counter(SHED, "low", "3").add(7)
    store.histogram(WAIT).record(3_000_000)
    assert reader.read() == read(tmp_path / "1.metrics") == store.snapshot()
    store.gauge(LAG).set(0.25)
    store.counter(SHED, "low", "3").add(1)
    assert reader.read() == read(tmp_path / "1.metrics") == store.snapshot()
    reader.close()
    assert [each.name for each in tmp_path.iterdir()] == ["1.metrics"]


def test_a_file_is_locked_while_its_store_lives(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "1.metrics")
    reader = StoreReader(tmp_path / "1.metrics")
    assert not reader.has_ended()
    store.counter(SHED, "low", "3").add()
    expected = store.snapshot()
    del store
    assert reader.has_ended()
    (tmp_path / "1.metrics").unlink()
    assert reader.read() == expected
    reader.close()


def test_a_reader_in_the_middle_of_an_entry_gets_the_entries_before(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "1.metrics")
    store.counter(SHED, "low", "3").add()
    published = store.snapshot()
    entry = layout.encoded(layout.Entry(SHED, ("low", "4"), 100, 1))
    with (tmp_path / "1.metrics").open("r+b") as file:
        end = layout.DIRECTORY_AT + int.from_bytes(file.read(16)[layout.PUBLISHED_AT :], "little")
        for length in range(len(entry) + 1):
            file.seek(end)
            file.write(entry[:length])
            file.flush()
            assert read(tmp_path / "1.metrics") == published


def test_children_of_unknown_families_or_of_another_shape_are_left_out(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "1.metrics")
    store.counter(SHED, "low", "3").add()
    expected = store.snapshot()
    foreign = b"".join(
        map(
            layout.encoded,
            [
                layout.Entry("cashier_of_tomorrow_total", ("x",), 100, 1),
                layout.Entry(SHED, ("low",), 100, 1),
                layout.Entry(WAIT, (), 100, 3),
            ],
        )
    )
    _append(tmp_path / "1.metrics", foreign)
    assert read(tmp_path / "1.metrics") == expected


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xff",
        b"\x02\x00{}",
        b"\x01",
        layout.encoded(layout.Entry(SHED, ("low", "9"), layout.CELLS, 1)),
        layout.encoded(layout.Entry(SHED, ("low", "9"), -5, 1)),
        layout.encoded(layout.Entry(SHED, ("low", "9"), 5, -5)),
        layout.encoded(layout.Entry(SHED, ("low", "9"), 1 << 62, 1 << 62)),
    ],
)
def test_a_damaged_directory_is_refused(tmp_path: Path, damage: bytes) -> None:
    Store.create(tmp_path / "1.metrics")
    _append(tmp_path / "1.metrics", damage)
    with pytest.raises(layout.UnreadableStore):
        read(tmp_path / "1.metrics")


def test_a_truncated_file_is_refused_or_empty_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "1.metrics"
    store = Store.create(path)
    store.counter(SHED, "low", "3").add(7)
    whole = path.read_bytes()
    for length in (0, 1, 15, 16, 17, 63, 64, 65, 200, layout.DIRECTORY_AT, layout.DIRECTORY_AT + 5):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(layout.UnreadableStore):
            read(tmp_path / "cut")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nothing of ours" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "text")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("text", "link", "folder", "pipe", "absent"):
        with pytest.raises((layout.UnreadableStore, OSError)):
            read(tmp_path / name)


def test_an_existing_name_is_kept_out_of_until_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / ".1.metrics.unfinished").touch()
    with pytest.raises(FileExistsError):
        Store.create(tmp_path / "1.metrics")


def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        Store.create(tmp_path / "1.metrics")
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_counts_for_itself() -> None:
    store = Store()
    counter = store.counter(SHED, "low", "3")
    counter.add()
    child = os.fork()
    if child == 0:
        counter.add(10)
        os._exit(counter.value)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 11
    assert counter.value == 1


def test_merged_adds_counters_and_takes_gauges_as_their_rows_say() -> None:
    one, other = Store(), Store()
    for store, number in ((one, 3), (other, 4)):
        store.counter(SHED, "low", "3").add(number)
        store.gauge(LAG).set(number)
        store.gauge(IN_FLIGHT, "card", "http://a").set(number)
        store.histogram(WAIT).record(number)
    other.counter(SHED, "low", "4").add()
    total = merged([one.snapshot(), other.snapshot()])
    histogram = HistogramValue((2, *[0] * len(BUCKET_BOUNDS_NS)), 7)
    assert total == {
        SHED: {("low", "3"): 7, ("low", "4"): 1},
        LAG: {(): 4},
        IN_FLIGHT: {("card", "http://a"): 7},
        WAIT: {(): histogram},
    }
    assert without_gauges(total) == {SHED: total[SHED], WAIT: total[WAIT]}


def read(path: Path) -> Snapshot:
    reader = StoreReader(path)
    try:
        return reader.read()
    finally:
        reader.close()


def _append(path: Path, entries: bytes) -> None:
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(16)[layout.PUBLISHED_AT :], "little")
        file.seek(layout.DIRECTORY_AT + length)
        file.write(entries)
        file.seek(layout.PUBLISHED_AT)
        file.write((length + len(entries)).to_bytes(8, "little"))


def test_a_store_that_is_off_has_children_and_no_numbers() -> None:
    store = Store(enabled=False)
    store.counter(SHED, "low", "3").add()
    store.histogram(WAIT).record(5)
    store.gauge(LAG).set(1)
    assert store.snapshot() == {}
