"""`cashier why`: an explanation at every width, in short and in full, and its exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from cashier.cli import service_client
from cashier.cli.commands import cli
from cashier.cli.operations_client import OperationsClient
from cashier.cli.why_printer import why_lines
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.domain.order import OrderStatus
from cashier.domain.pay_method import Kind
from cashier.domain.ranking import Weights
from cashier.ops.records_endpoint import RecordList, RecordSummary, StepList
from cashier.payments.step_feed import PaymentStep
from cashier.source_errors import MissingCause
from cashier.telemetry.pseudonyms import Pseudonyms
from cashier.telemetry.records import Verdict
from cashier.telemetry.replay import digest_of, packed, recorded
from tests.domain.builders import CATALOG, NOW, World, account, card, channel, one_of_each, order, promotion, quota
from tests.domain.explanation.evidence import evidence_of, explained

WIDTHS = (40, 60, 80, 120)
WORLDS = {
    "one of each": one_of_each(),
    "silent": one_of_each(silent={"quota": MissingCause.TIMEOUT, "card": MissingCause.GARBLED}),
    "blocked": one_of_each(order=order(status=OrderStatus.PAID)),
    "short of balance": one_of_each(
        accounts=(account(5),),
        promotions=(promotion("p_1", 100), promotion("p_2", 50, kinds=(Kind.WALLET,))),
        quotas=(quota(Kind.QUICK_PAY, daily=(100, 1)),),
    ),
    "empty": World(),
}


def document(world: World) -> Any:
    return orjson.loads(msgspec.json.encode(explained(world)))


def printed(world: World, *kinds: str, width: int = 120) -> str:
    return "\n".join(line.plain for line in why_lines(document(world), kinds, width))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", WORLDS)
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    for kinds in ((), tuple(Kind)):
        wide = [line for line in printed(WORLDS[name], *kinds, width=width).split("\n") if cell_len(line) > width]
        assert wide == []


def test_every_kind_is_there_with_the_verdict_of_each_method() -> None:
    text = printed(WORLDS["short of balance"])
    for kind in Kind:
        assert f"\n {kind}\n" in text
    assert "○ BALANCE:b_1" in text
    assert "BALANCE_SUFFICIENT" in text
    assert "DAILY_LIMIT_EXCEEDED: the payable amount must be within what is left of the day's quota" in text
    assert "Not listed: the order must leave something to pay" in text


def test_a_chosen_kind_is_shown_alone_and_in_full() -> None:
    text = printed(WORLDS["short of balance"], "QUICK_PAY")
    assert "\n WALLET\n" not in text
    assert "CARD_EXPIRY" in text
    assert re.search(r"DAILY_LIMIT +refused", text)
    assert "OTHER_KIND: It is for WALLET only." in text


def answer_with(monkeypatch: pytest.MonkeyPatch, body: Any) -> list[tuple[str, dict[str, Any], str | None]]:
    asked = []

    async def why(url: str, question: dict[str, Any], token: str | None) -> Any:
        asked.append((url, question, token))
        return body

    monkeypatch.setattr(service_client, "why", why)
    return asked


def test_the_question_has_what_was_given_and_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer_with(monkeypatch, document(one_of_each()))
    words = ["why", "--url", "http://here", "--order-id", "o_1", "--merchant-id", "m_1", "--fresh", "--amount", "CNY:5"]
    done = CliRunner().invoke(cli, words, env={"CASHIER_OPERATIONS_TOKEN": "secret", "COLUMNS": "80"})
    assert done.exit_code == 0
    question = {"order_id": "o_1", "merchant_id": "m_1", "amount": {"currency": "CNY", "value": 5}, "fresh": True}
    assert asked == [("http://here", question, "secret")]
    assert "secret" not in done.output


def test_json_is_the_body_of_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    body = document(one_of_each())
    answer_with(monkeypatch, body)
    done = CliRunner().invoke(cli, ["why", "--case", "chinese_shop", "--json"])
    assert (done.exit_code, orjson.loads(done.stdout_bytes)) == (0, body)


def test_a_problem_ends_with_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, {"title": "Forbidden", "status": 403, "code": "FORBIDDEN", "detail": "It lacks a scope."})
    done = CliRunner().invoke(cli, ["why", "--case", "chinese_shop"])
    assert done.exit_code == 1
    assert "403 FORBIDDEN" in done.output


def test_an_unknown_kind_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer_with(monkeypatch, {})
    done = CliRunner().invoke(cli, ["why", "--case", "chinese_shop", "--kind", "cash"])
    assert (done.exit_code, asked) == (1, [])
    assert "known are QUICK_PAY" in done.output


def configured(folder: Path, ranking: str = "") -> Path:
    path = folder / "cashier.toml"
    sources = [name for name in SOURCE_NAMES if name != "marketing"]
    path.write_text("".join(f'[sources.{name}]\nurl = "http://127.0.0.1:1"\n' for name in sources))
    if ranking:
        (folder / "ranking.toml").write_text(ranking)
    return path


def recorded_in(folder: Path, **changes: Any) -> Path:
    world = World(cards=(card("CMB"),), channels=(channel(Kind.QUICK_PAY, "CMB"),), accounts=(account(50_000),))
    digest = digest_of(CATALOG, Weights())
    facts = recorded(evidence_of(world), world.methods(), digest, Pseudonyms(b"k" * 32))
    path = folder / "record.json"
    path.write_bytes(msgspec.json.encode({"request_id": "r-1", "facts": packed(facts)} | changes))
    return path


def test_a_record_is_replayed_without_a_service(tmp_path: Path) -> None:
    words = ["why", "--from", str(recorded_in(tmp_path)), "--config", str(configured(tmp_path))]
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "● QUICK_PAY:2_i_" in done.output
    assert "BALANCE:" in done.output
    json = orjson.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout_bytes)
    assert json["outcome"] == "ANSWERED"


def test_another_configuration_is_named_with_what_it_changes(tmp_path: Path) -> None:
    config = configured(tmp_path, "cost = 10_000\nfailure = 10_000\n")
    done = CliRunner().invoke(cli, ["why", "--from", str(recorded_in(tmp_path)), "--config", str(config)])
    assert done.exit_code == 0
    assert "has other terms or weights" in done.stderr


@pytest.mark.parametrize(
    ("changes", "reason"), [({"facts": None}, "has no facts"), ({"facts": b"x"}, "cannot be read")]
)
def test_a_record_that_cannot_be_replayed_ends_in_one_line(tmp_path: Path, changes: Any, reason: str) -> None:
    config = configured(tmp_path)
    done = CliRunner().invoke(cli, ["why", "--from", str(recorded_in(tmp_path, **changes)), "--config", str(config)])
    assert done.exit_code == 1
    assert reason in done.stderr
    (tmp_path / "text").write_text("no json")
    for name in ("text", "nothing"):
        done = CliRunner().invoke(cli, ["why", "--from", str(tmp_path / name), "--config", str(config)])
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)


HOSTILE = {
    "deep": b"[" * 200_000,
    "deep in an unknown field": b'{"x": ' + b"[" * 200_000,
    "huge": b" " * (2 << 20),
    "a list": b"[]",
    "wrong type": b'{"facts": 7}',
    "no UTF-8": b'{"facts": "\xff"}',
    "nothing": b"",
    "a terminal's escape": b'{"facts": "\\u001b[2J"}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_record_ends_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(HOSTILE[name])
    done = CliRunner().invoke(cli, ["why", "--from", str(path), "--config", str(configured(tmp_path))])
    assert isinstance(done.exception, SystemExit)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "record" in done.stderr


def test_a_file_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["why", "--from", "/dev/zero", "--config", str(configured(tmp_path))])
    assert done.exit_code == 1
    assert "at most" in done.stderr


def test_words_of_a_record_do_not_steer_the_terminal(tmp_path: Path) -> None:
    world = World(cards=(card("CMB"),), channels=(channel(Kind.QUICK_PAY, "CMB"),))
    facts = recorded(evidence_of(world), world.methods(), "0" * 16, Pseudonyms(b"k" * 32))
    odd = msgspec.structs.replace(facts.methods[0], method_id="\x1b[2J\x9bevil\u202e")
    hostile = msgspec.structs.replace(facts, methods=(odd,))
    path = recorded_in(tmp_path, facts=packed(hostile))
    done = CliRunner().invoke(cli, ["why", "--from", str(path), "--config", str(configured(tmp_path))])
    assert "evil" in done.stderr
    assert all(character.isprintable() or character == "\n" for character in done.stderr + done.output)


def operations_port(monkeypatch: pytest.MonkeyPatch, folder: Path, *orders: str) -> None:
    """A port with the record of `recorded_in` for each order."""
    body = recorded_in(folder).read_bytes()
    listed = tuple(
        RecordSummary(
            key="k1", started_at=NOW, order_id=order_id, request_id="r-1", trace_id=None, outcome="DEGRADED",
            verdicts=(Verdict.LATE, Verdict.DEGRADED), elapsed_ms=160.0, deadline_ms=150.0, sources=("quota",),
            recheck=False, replays=True,
        )
        for order_id in orders
    )  # fmt: skip

    async def records(_: OperationsClient, order_id: str | None = None) -> RecordList:
        return RecordList(tuple(each for each in listed if order_id in (None, each.order_id)), True)

    async def record(_: OperationsClient, key: str) -> bytes:
        assert key == "k1"
        return body

    monkeypatch.setattr(OperationsClient, "records", records)
    monkeypatch.setattr(OperationsClient, "record", record)


@pytest.mark.parametrize("width", WIDTHS)
def test_recorded_consultations_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, width: int) -> None:
    operations_port(monkeypatch, tmp_path, "o_1", "o_2")
    done = CliRunner().invoke(cli, ["why", "--ops", "http://here"], env={"COLUMNS": str(width)})
    assert done.exit_code == 0
    assert all(word in done.output for word in ("o_1", "o_2", "LATE", "quota"))
    assert max(map(cell_len, done.output.splitlines())) <= width


def test_the_last_recorded_consultation_of_an_order_is_replayed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    operations_port(monkeypatch, tmp_path, "o_1")
    words = ["why", "--ops", "http://here", "--config", str(configured(tmp_path))]
    done = CliRunner().invoke(cli, [*words, "--order-id", "o_1"])
    assert done.exit_code == 0
    assert "● QUICK_PAY:2_i_" in done.output
    none = CliRunner().invoke(cli, [*words, "--order-id", "o_9"])
    assert none.exit_code == 1
    assert "no recorded consultation of o_9" in none.stderr


STEPS = (
    PaymentStep(
        1_800_000_000.0, 7, "pay_1", "o_1", "WALLET", "risk", "no decision from risk", "warning", "r_1",
        fields={"code": "TIMEOUT", "elapsed_ms": 700.0},
    ),
    PaymentStep(
        1_800_000_000.7, 7, "pay_1", "o_1", "WALLET", "status", "payment ended\x1b[2J", "info", "r_1",
        fields={"flags": ["REVERSED", "CORRECTED"]},
    ),
)  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_the_steps_of_a_payment_are_shown_by_its_id(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    async def steps(_: OperationsClient, payment_id: str) -> StepList:
        return StepList(STEPS if payment_id == "pay_1" else ())

    monkeypatch.setattr(OperationsClient, "steps", steps)
    words = ["why", "--ops", "http://here", "--payment-id"]
    done = CliRunner().invoke(cli, [*words, "pay_1"], env={"COLUMNS": str(width)})
    assert done.exit_code == 0
    assert max(map(cell_len, done.output.splitlines())) <= width
    text = " ".join(done.output.split())
    assert text.index("08:00:00.000") < text.index("08:00:00.700")
    assert all(shown in text for shown in ("pay_1", "700.0 ms", "TIMEOUT", "REVERSED,CORRECTED", "r_1"))
    assert "\x1b[2J" not in done.output
    printed = json.loads(CliRunner().invoke(cli, [*words, "pay_1", "--json"]).stdout)
    assert [step["event"] for step in printed] == [step.event for step in STEPS]
    none = CliRunner().invoke(cli, [*words, "pay_2"])
    assert none.exit_code == 1
    assert "no step of pay_2" in none.stderr


@pytest.mark.parametrize("others", [[], ["--ops", "http://here", "--order-id", "o_1"]])
def test_a_payment_id_goes_with_an_operations_port_alone(others: list[str]) -> None:
    done = CliRunner().invoke(cli, ["why", "--payment-id", "pay_1", *others])
    assert done.exit_code != 0
    assert "--payment-id goes with --ops" in done.stderr


def test_words_of_upstreams_do_not_steer_the_terminal() -> None:
    world = one_of_each(promotions=(promotion("\x1b[2J\x9bevil\r\u202e", 5),))
    for kinds in ((), ("WALLET",)):
        text = printed(world, *kinds)
        assert "evil" in text
        assert all(character.isprintable() or character == "\n" for character in text)
