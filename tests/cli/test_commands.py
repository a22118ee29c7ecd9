"""The command line as real processes: their output and their exit status."""

from __future__ import annotations

import importlib.metadata
import json
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cashier
from cashier.cli.commands import cli
from cashier.consultation.source_table import SOURCE_NAMES
from tests.support.command_processes import configured, running
from tests.support.forked_commands import Run, commands


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with commands() as run_command:
        yield run_command


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


@pytest.fixture(scope="module")
def config(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return configured(tmp_path_factory.mktemp("cli"), sandbox)


@pytest.fixture(scope="module")
def service(config: Path) -> Iterator[str]:
    with running("serve", "--config", str(config)) as command:
        yield command.address("Serving on")


def test_the_demonstration_shows_a_consultation_and_a_payment_and_ends(run: Run) -> None:
    status, out, err = run("demo", "--once", "--deadline-ms", "1000")
    assert (status, err) == (0, "")
    assert "China Merchants Bank credit card (1014)" in out
    assert "128.00 − 10.00 − 6.40 − 2.88 = 108.72 CNY" in out
    assert re.search(r"submit +202 +CHALLENGE.*\n(.*\n)?.*SMS_OTP +138\*\*\*\*1234", out)
    assert re.search(r"SUCCEEDED +[\d.]+ ms +Paid\.", out)
    assert re.search(r"money taken 108\.72 = order 128\.00 − discounts 19\.28 \+ fee 0\.00 .*\n.*nothing is wrong", out)
    for source in ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing"):
        assert re.search(rf"{source}\s+\w+\s+━+.*FRESH", out), source


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.processes
def test_the_demonstration_serves_until_a_signal_and_leaves_nothing(run: Run, number: int) -> None:
    with running("demo", "--weather", "still") as command:
        url = command.address("service")
        assert run("consult", "--url", url, "--case", "japanese_shop")[0] == 0
        status, _, err = command.end(number)
        assert "Traceback" not in err
        assert status in (0, -number, 128 + number)


@pytest.mark.processes
def test_the_commands_that_the_demonstration_suggests_work(run: Run) -> None:
    with running("demo", "--weather", "still") as command:
        sandbox = command.address("sandbox")
        commands = []
        assert command.process.stdout is not None
        for line in command.process.stdout:
            if line.strip().startswith("cashier "):
                commands.append(line.split()[1:])
            if "--json" in line:
                break
        assert len(commands) >= 9
        for words in commands:
            status, out, err = paid_at_the_bank(words) if "tok_3ds_1" in words else run(*words)
            assert (status, err) == (1 if "--cancel-after" in words else 0, ""), words
            assert ("CLOSED " in out) == ("--cancel-after" in words)
            assert ("Please do not" in out) == ("balance_is_enough" in words and "pay" in words), out
        assert fetched(f"{sandbox}/ledger")["wrong"] == []


@pytest.mark.processes
def test_the_console_of_the_demonstration_has_its_service_and_the_steps_of_payments(run: Run) -> None:
    with running("demo", "--weather", "still") as command:
        url, console = command.address("service"), command.address("the console +")
        _, out, _ = run("pay", "--url", url, "--case", "balance_is_enough", "--otp", "246810", "--json")
        payment_id = json.loads(out)["payment_id"]
        ends_s = time.monotonic() + 30
        out = ""
        # The steps reach the console one after the other, some after the reply to the payer.
        while "payment ended" not in out and time.monotonic() < ends_s:
            time.sleep(0.1)
            status, out, err = run("why", "--ops", console, "--payment-id", payment_id)
        assert (status, err) == (0, "")
        assert out.index("accepted by risk") < out.index("payment ended")
        overview = fetched(f"{console}/api/overview")
        assert overview["payments"]["configured"]
        assert [worker["pid"] for worker in overview["runtime"]["workers"]] == [command.process.pid]


def paid_at_the_bank(words: list[str]) -> tuple[int, str, str]:
    """Run a payment, open the printed page and press Pay."""
    with running(*words) as command:
        page = command.address(" ").replace(" ", "")
        with urllib.request.urlopen(page, data=b"choice=pay") as answer:
            assert answer.status == 200
        return command.wait()


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def test_a_hanging_source_leaves_its_methods_undetermined_and_the_answer_comes(
    run: Run, sandbox: str, service: str
) -> None:
    try:
        assert run("weather", "quota", "hang", "--url", sandbox)[0] == 0
        _, out, _ = run("consult", "--url", service, "--case", "chinese_shop", "--json", "--deadline-ms", "1000")
        answer = json.loads(out)
        assert {method["availability"] for method in answer["methods"]} == {"UNDETERMINED", "UNAVAILABLE"}
        assert {
            method["reason"]["source"] for method in answer["methods"] if method["availability"] == "UNDETERMINED"
        } == {"quota"}
        assert next(source["status"] for source in answer["sources"] if source["name"] == "quota") == "TIMEOUT"
    finally:
        assert run("weather", "restore", "--url", sandbox)[0] == 0
    answer = json.loads(run("consult", "--url", service, "--case", "chinese_shop", "--json")[1])
    assert (answer["degraded"], answer["methods"][0]["availability"]) == (False, "AVAILABLE")


def test_a_stream_shows_each_answer_as_it_improves(run: Run, sandbox: str, service: str) -> None:
    try:
        assert run("weather", "quota", "hang", "--url", sandbox)[0] == 0
        status, out, err = run(
            "consult", "--url", service, "--case", "chinese_shop", "--stream", "--deadline-ms", "1000"
        )
    finally:
        assert run("weather", "restore", "--url", sandbox)[0] == 0
    assert (status, err) == (0, "")
    assert re.search(r"\+\d+ ms  answer 1: 0 available, \d+ undetermined \(waiting for .*quota.*\)\n", out)
    assert re.search(r"\+\d+ ms  answer \d: 0 available, \d+ undetermined\n *\+\d+ ms  end: deadline\n", out)
    assert re.search(r"quota\s+gating\s+━+.*TIMEOUT", out)


def test_a_stream_that_cannot_start_shows_the_problem(run: Run, service: str) -> None:
    status, out, err = run("consult", "--url", service, "--case", "order_unknown", "--stream")
    assert (status, err) == (1, "")
    assert "404 ORDER_UNKNOWN" in out


def test_an_order_can_be_named_by_its_ids(run: Run, service: str) -> None:
    words = (
        "--order-id",
        "o_1001",
        "--user-id",
        "u_1",
        "--merchant-id",
        "m_1",
        "--amount",
        "CNY:12800",
        "--country",
        "CN",
    )
    status, out, _ = run("consult", "--url", service, *words)
    assert status == 0
    assert "128.00 CNY" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("consult", "--url", "http://127.0.0.1:1", "--case", "order_paid"),
            "nothing listens on 127.0.0.1:1; start it with `cashier serve`",
        ),
        (
            ("consult", "--url", "http://127.0.0.1:1", "--case", "order_paid", "--stream"),
            "nothing listens on 127.0.0.1:1; start it with `cashier serve`",
        ),
        (
            ("weather", "quota", "hang", "--url", "http://127.0.0.1:1"),
            "nothing listens on 127.0.0.1:1; start it with `cashier sandbox`",
        ),
        (
            ("consult", "--url", "http://no.host.invalid", "--case", "order_paid"),
            "no answer from http://no.host.invalid: ",
        ),
        (
            ("consult", "--case", "order_paid", "--stream", "--json"),
            "--json and --stream exclude each other: choose one",
        ),
        (
            ("pay", "--promotion", "p_1", "--no-promotions"),
            "--promotion and --no-promotions exclude each other: choose one",
        ),
        (("consult", "--case", "nope"), "there is no case 'nope'; `cashier cases` lists them"),
        (
            ("consult", "--case", "order_paid", "--amount", "12"),
            "--amount '12' is not an amount; an example is CNY:12800",
        ),
        (("demo", "--case", "nope"), "there is no case 'nope'"),
        (("demo", "--weather", "sunny"), "--weather 'sunny' is not one of still, fixed, calm, windy, stormy\n"),
        (("sandbox", "--weather", "calmer"), "did you mean 'calm'?"),
        (("serve", "--config", "nope.toml"), "nope.toml: there is no such file; name one with --config"),
        (("check", "--config", "README.md"), "README.md is not valid TOML: "),
        (("serve", "--host", "0.0.0.0"), '[auth] mode = "none" admits every caller on 0.0.0.0'),
    ],
)
def test_a_mistake_ends_in_one_clear_line(run: Run, words: tuple[str, ...], message: str) -> None:
    status, out, err = run(*words)
    assert status == 1
    assert message in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "localhost:8080", "nowhere", "http://", "ftp://127.0.0.1"])
@pytest.mark.parametrize(
    "words",
    [
        ("consult", "--case", "order_paid"),
        ("consult", "--case", "order_paid", "--json"),
        ("consult", "--case", "order_paid", "--stream"),
        ("pay",),
        ("payment", "pay_1", "--token", "t"),
        ("weather", "quota"),
        ("weather", "quota", "hang"),
        ("weather", "quota", "hang", "--next"),
        ("weather", "restore"),
    ],
    ids=" ".join,
)
def test_every_command_says_what_an_address_looks_like(run: Run, words: tuple[str, ...], url: str) -> None:
    status, out, err = run(*words, "--url", url)
    assert (status, out.strip()) == (1, "")
    assert err == f"{url} is not an address; an example is http://127.0.0.1:8080\n"


@pytest.mark.parametrize("command", [("sandbox",), ("serve",), ("serve", "--workers", "2")], ids=" ".join)
def test_an_address_that_cannot_be_used_ends_in_one_line(run: Run, sandbox: str, command: tuple[str, ...]) -> None:
    port = sandbox.rpartition(":")[2]
    assert run(*command, "--port", port) == (
        1,
        "",
        f"127.0.0.1:{port} is in use: stop the other program or choose another --port\n",
    )


def test_an_address_of_another_machine_ends_in_one_line(run: Run) -> None:
    # 192.0.2.0/24 is reserved for documentation.
    message = "192.0.2.1 is not an address of this machine: choose another --host\n"
    assert run("sandbox", "--host", "192.0.2.1", "--port", "0") == (1, "", message)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".a"])
def test_a_host_that_is_no_name_ends_in_one_line(run: Run, host: str) -> None:
    message = f"{host} is not an address of this machine: choose another --host\n"
    assert run("sandbox", "--host", host, "--port", "0") == (1, "", message)


def test_an_invalid_request_is_reported_field_by_field(run: Run, service: str) -> None:
    status, out, _ = run("consult", "--url", service, "--order-id", "a b", "--user-id", "u_1", "--merchant-id", "m_1")
    assert status == 1
    assert "422 INVALID  Invalid request\n" in out
    assert out.count("order_id") == 1


def test_init_writes_a_configuration_that_is_good_and_never_overwrites(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "cashier.toml"
    status, out, _ = run("init", str(path))
    assert status == 0
    assert f"cashier check --config {path}" in out
    assert run("check", "--config", str(path))[0] == 0
    path.write_text("# mine")
    status, _, err = run("init", str(path))
    assert status == 1
    assert f"{path} exists already" in err
    assert path.read_text() == "# mine"
    status, _, err = run("init", "/proc/no/cashier.toml")
    assert status == 1
    assert "cannot be written" in err


def test_a_good_configuration_is_called_good_in_one_line(run: Run) -> None:
    status, out, _ = run("check", "--config", "config/cashier.toml")
    assert (status, out) == (0, "config/cashier.toml is good.\n")


def test_a_doubtful_setting_is_a_warning_on_standard_error(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cashier.toml"
    path.write_text(
        "\ufeff" + Path("config/cashier.toml").read_text("utf-8").replace("grace_ms = 15", "grace_ms = 500")
    )
    status, out, err = run("check", "--config", str(path))
    assert (status, out) == (0, f"{path} is good.\n")
    assert f"{path}: warning: [consult] grace_ms = 500 is not below deadline_ms = 150" in err


def test_a_check_says_what_discovery_finds(run: Run, tmp_path: Path) -> None:
    path, addresses = tmp_path / "cashier.toml", tmp_path / "card.json"
    addresses.write_text('["10.0.0.1:8080", "[fd00::1]:81", {"address": "10.0.0.2", "weight": 2, "priority": 1}]')
    card = '[sources.card]\nurl = "http://127.0.0.1:9100"'
    discovered = f'[sources.card]\nurl = "http://card"\ndiscover = {{ file = "{addresses}" }}'
    path.write_text(Path("config/cashier.toml").read_text("utf-8").replace(card, discovered))
    status, out, err = run("check", "--config", str(path))
    assert status == 0, err
    found = "10.0.0.1:8080, [fd00::1]:81, 10.0.0.2 (priority 1, weight 2)"
    assert out == f"[sources.card] discover finds 3 addresses: {found}\n{path} is good.\n"
    addresses.write_text("[")
    status, out, err = run("check", "--config", str(path))
    assert (status, out) == (0, f"{path} is good.\n")
    assert f"{path}: warning: [sources.card] discover finds no address: the list cannot be used" in err


def test_the_plan_of_a_rate_is_printed(run: Run) -> None:
    status, out, _ = run("plan", "--config", "config/cashier.toml", "--rate", "2000", "--cpu-us", "500")
    words = " ".join(out.split())
    assert status == 0
    assert "2,000 consultations per second, over all workers" in out
    assert "CPU: 1.0 cores at 500 µs per consultation, so 2 workers" in words
    assert re.search(r"order +2,000 +2,100 +252 +no\n", out)
    assert re.search(r"merchant +2,000 +2,100 +210 +yes\n", out)
    assert "at most 16,800 calls per second, 8.40 per consultation" in words
    assert run("plan", "--config", "config/cashier.toml", "--rate", "0")[0] == 2


def test_the_plan_of_a_configuration_is_printed(run: Run) -> None:
    status, out, _ = run("plan", "--config", "config/cashier.toml")
    assert status == 0
    assert "The fan-out of a consultation ends after 147 ms at the latest" in out
    count = len(SOURCE_NAMES)
    assert f"It makes {count} calls, and at most {2 * count} with a hedge or a retry of each." in out
    words = " ".join(out.split())
    assert "A submit ends after 15 s at the latest where nothing has changed" in words
    assert f"It makes {count + 3} calls, and one to the acquirer" in words
    assert re.search(r"look the payment up +engine +look_ms +2000 ms\n", out)
    assert re.search(r"check without a cache +all sources at once +check_ms +1000 ms\n", out)
    assert "A look and a cancellation end after 6 s at the latest, a long poll after 42 s" in words
    assert "the next beside one that is silent for 616 ms" in words
    assert "A gateway must wait 42 s" in words
    assert "A stop waits drain_s = 20 for answers, then 31 s" in words
    cut_off = "Every call is cut off at 147 ms, the deadline (150 ms) less the reserve for our own work (3 ms)"
    assert cut_off in words
    assert re.search(r"timeout +ends by +ends by, +calls +in flight .*\n +order first +per worker\n", out)
    assert re.search(r"channel\s+GATING\s+currency, country\s+100 ms\s+100 ms\s+220 ms", out)


def test_a_probe_shows_request_status_and_answer_of_each_source(run: Run, config: Path) -> None:
    status, out, err = run("probe", "--order-id", "o_1001", "--config", str(config))
    assert (status, err) == (0, "")
    assert re.search(r"● card +http://127.0.0.1:\d+ +200 +[\d.]+ ms\n +GET /members/u_1/cards\n", out)
    assert '"card_id": "c_1", "bank": "ICBC"' in " ".join(out.split())
    assert re.search(r"engine .* 404 .*\n +GET /payments/probe_\w+\n +there is none", out)
    assert "10 of 10 sources gave a usable answer." in out


@pytest.mark.parametrize(
    ("source", "url", "fault"),
    [
        ("card", "http://no-such-host.invalid", "UNREACHABLE"),
        ("card", "{sandbox}/v9", "GARBLED: a 404"),
        ("quota", "https://127.0.0.1:{port}", "UNREACHABLE"),
        ("acquirer", "{sandbox}/v9", "GARBLED: a 404"),
    ],
)
def test_a_probe_names_the_fault_of_a_source_and_shows_the_others(
    run: Run, config: Path, sandbox: str, tmp_path: Path, source: str, url: str, fault: str
) -> None:
    text = config.read_text("utf-8")
    address = url.format(sandbox=sandbox, port=sandbox.rpartition(":")[2])
    own = re.sub(rf'(\[sources.{source}\]\nurl = )"[^"]*"', rf'\1"{address}"', text)
    assert own != text
    path = tmp_path / "cashier.toml"
    path.write_text(own, "utf-8")
    status, out, _ = run("probe", "--order-id", "o_1001", "--config", str(path))
    assert status == 1
    heading, *findings = out.partition(f"○ {source} ")[2].splitlines()[:3]
    assert address in heading
    assert any(fault in finding for finding in findings), out
    assert "9 of 10 sources gave a usable answer." in out


def test_a_probe_without_a_user_says_which_option_gives_one(run: Run, config: Path) -> None:
    status, out, _ = run("probe", "--order-id", "o_1014", "--config", str(config))
    assert status == 1
    assert re.search(r"\? card .*\n +not asked: no user_id, given or in the order; give --user-id\n", out)
    status, out, _ = run("probe", "--order-id", "o_1014", "--user-id", "u_1", "--config", str(config), "--json")
    assert status == 0
    assert {exchange["source"]: exchange["requests"] for exchange in json.loads(out)["sources"]}["card"] == [
        "GET /members/u_1/cards"
    ]


@pytest.mark.parametrize("words", [("--order-id", "a/b"), ("--order-id", "o_1", "--country", "cn")])
def test_a_probe_refuses_an_input_that_no_request_may_have(run: Run, config: Path, words: tuple[str, ...]) -> None:
    status, _, err = run("probe", *words, "--config", str(config))
    assert status == 1
    assert "is not" in err


def test_the_help_of_every_command_is_whole_in_the_list_of_commands() -> None:
    found = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "80"})
    _, _, listed = found.stdout.partition("Commands:\n")
    helps = [command.short_help for command in cli.registered_commands]
    helps += [group.short_help for group in cli.registered_groups]
    assert len(listed.splitlines()) == len(helps) > 16
    assert "..." not in listed
    assert all(text and len(text) <= 60 for text in helps)


def test_every_command_says_in_its_own_help_what_it_does() -> None:
    names = [
        line.split()[0] for line in CliRunner().invoke(cli, ["--help"]).stdout.partition("Commands:\n")[2].splitlines()
    ]
    for name in names:
        usage, text, *_ = CliRunner().invoke(cli, [name, "--help"]).stdout.split("\n\n")
        assert usage.startswith("Usage: ")
        assert text.startswith("  "), name


def test_the_cases_are_listed(run: Run) -> None:
    out = run("cases")[1]
    assert "chinese_shop" in out
    assert "order_user_mismatch" in out


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"cashier {cashier.__version__}\n", "")
    assert cashier.__version__ == importlib.metadata.version("cashier")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.processes)])
def test_a_service_ends_on_sigterm(run: Run, config: Path, workers: str) -> None:
    with running("serve", "--config", str(config), "--workers", workers) as command:
        url = command.address("Serving on")
        assert run("consult", "--url", url, "--case", "chinese_shop")[0] == 0
        status, out, err = command.end()
        assert "Traceback" not in out + err
        assert status in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.processes
def test_workers_end_with_the_supervisor_that_was_killed(run: Run, config: Path) -> None:
    with running("serve", "--config", str(config), "--workers", "2") as command:
        url = command.address("Serving on")
        assert run("consult", "--url", url, "--case", "chinese_shop")[0] == 0
        command.process.kill()
        command.wait()  # until the last worker closes the output
        assert run("consult", "--url", url, "--case", "chinese_shop")[0] == 1
