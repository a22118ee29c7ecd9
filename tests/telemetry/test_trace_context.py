"""W3C Trace Context: which headers are valid, and what is read from them."""

from __future__ import annotations

import pytest

from cashier.telemetry.trace_context import TraceContext, payment_root, sampled_share_bps

VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("fe", False), ("ff", True)]
)
def test_the_lowest_flag_says_whether_it_is_sampled(flags: str, sampled: bool) -> None:
    context = TraceContext.parse(VALID[:-2] + flags)
    assert context == TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled)


def test_what_is_written_is_read_again() -> None:
    for context in (TraceContext.root(), TraceContext.root().child(), payment_root("pay_1")):
        assert TraceContext.parse(context.traceparent) == context


@pytest.mark.parametrize("suffix", ["", "-", "-more", "-more-of-it"])
def test_a_later_version_may_have_more_fields(suffix: str) -> None:
    assert TraceContext.parse(f"01{VALID[2:]}{suffix}") == TraceContext.parse(VALID)


@pytest.mark.parametrize(
    "header",
    [
        "",
        VALID + "-",
        VALID + "-more",
        VALID[:-1],
        VALID + "0",
        VALID + "\n",
        " " + VALID,
        VALID.upper(),
        VALID.replace("-", "_"),
        "ff" + VALID[2:],
        "0" + VALID,
        "01" + VALID[2:] + "more",
        "01" + VALID[2:] + "-ä",
        "00-" + "0" * 32 + VALID[35:],
        VALID[:36] + "0" * 16 + "-01",
        VALID[:-2] + "0g",
    ],
)
def test_any_other_header_is_not_valid(header: str) -> None:
    assert TraceContext.parse(header) is None


def test_the_trace_of_a_payment_follows_from_its_id() -> None:
    assert payment_root("pay_1") == payment_root("pay_1")
    assert payment_root("pay_1").trace_id != payment_root("pay_2").trace_id


def test_payments_are_sampled_evenly() -> None:
    sampled = sum(sampled_share_bps(payment_root(f"pay_{number}").trace_id) < 1_000 for number in range(5_000))
    assert 400 < sampled < 600
