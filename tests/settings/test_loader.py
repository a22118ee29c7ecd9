"""Faults of a configuration are reported with file, key and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.domain.pay_method import Kind, ReasonCode
from cashier.domain.payment_message import RETURN_PROMISES, MessageCode
from cashier.domain.text_form import Form
from cashier.domain.wording import text_of
from cashier.settings.loader import configuration, load, packaged, token_secrets
from cashier.settings.schema import ConfigurationError, TokenSettings
from cashier.wire.transport import Request, Response

URL = "http://127.0.0.1:9100"
ESSENTIAL = ("order", "merchant", "member", "card", "balance", "channel", "quota")
ROOT = Path(__file__).parent.parent.parent


def table(**other: Any) -> dict[str, Any]:
    return {"sources": {name: {"url": URL} for name in SOURCE_NAMES}, **other}


def source(**more: Any) -> dict[str, Any]:
    return {"sources": {**table()["sources"], "card": {"url": URL, **more}}}


def faults(settings: dict[str, Any], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as raised:
        Cashier(config=configuration(settings, "cashier.toml", environ=environ or {}))
    return "\n".join(raised.value.faults)


def test_only_the_urls_are_required() -> None:
    cashier = Cashier(config=configuration(table(), "cashier.toml"))
    assert {ask.name for ask in cashier.plan.asks} == set(SOURCE_NAMES)
    assert cashier.config.settings.consult.deadline_ms == 150


@pytest.mark.parametrize("name", ESSENTIAL)
def test_a_required_or_gating_source_must_be_configured(name: str) -> None:
    others = {other: settings for other, settings in table()["sources"].items() if other != name}
    assert faults({"sources": others}) == (
        f'cashier.toml: [sources.{name}] is missing; it needs a url, such as "http://127.0.0.1:9100"'
    )


def test_enriching_sources_may_be_left_out() -> None:
    essential = {name: table()["sources"][name] for name in ESSENTIAL}
    cashier = Cashier(config=configuration({"sources": essential}, "cashier.toml"))
    assert [ask.name for ask in cashier.plan.asks] == list(ESSENTIAL)


def test_an_unknown_function_is_reported_with_the_known_sources() -> None:
    async def unused(**inputs: Any) -> None: ...

    with pytest.raises(ConfigurationError) as raised:
        Cashier(sources={"xyz": unused}, config=table())
    assert raised.value.faults == [f"there is no source 'xyz'; known are {', '.join(SOURCE_NAMES)}"]


def test_the_example_configuration_is_valid_and_has_the_defaults() -> None:
    example = load(ROOT / "config/cashier.toml").settings
    default = configuration({}, "").settings
    for name in ("server", "auth", "consult", "accept", "tokens"):
        assert getattr(example, name) == getattr(default, name)


def services(*names: str, **more: Any) -> dict[str, Any]:
    return {"sources": {**table()["sources"], **{name: {"url": URL, **more} for name in names}}}


def test_payments_need_all_three_services() -> None:
    assert Cashier(config=table()).payments is None
    assert Cashier(config=services("risk", "engine", "acquirer")).payments is not None
    reported = faults(services("engine", "acquirer"))
    assert reported == "cashier.toml: [sources.risk] is missing; payments need risk, engine and acquirer"


async def test_functions_replace_the_three_services() -> None:
    async def answering(request: Request) -> Response:
        return Response(404, b"")

    functions = dict.fromkeys(("risk", "engine", "acquirer"), answering)
    async with Cashier(sources=functions, config=table()) as cashier:
        assert cashier.payments is not None


async def a_service(request: Request) -> Response:
    return Response(404, b"")


def test_the_configuration_may_name_a_function_as_a_service() -> None:
    named = services("risk", "engine", "acquirer", url=f"{__name__}:a_service", transport="local")
    assert Cashier(config=configuration(named, "cashier.toml")).payments is not None
    named["sources"]["risk"]["url"] = f"{__name__}:no_service"
    assert "no_service" in faults(named)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (table(accept={"check": 3}), "cashier.toml: [accept] unknown key 'check'; did you mean 'check_ms'?"),
        (services("engine", timeout_ms=3), "[sources.engine] unknown key 'timeout_ms'; known keys are"),
        (
            services("engine", aiohttp={}),
            '[sources.engine.aiohttp] is for transport = "aiohttp", but this source has "http1"',
        ),
        (
            services("risk", "engine", "acquirer", tries={"attempts": 0}),
            "[sources.risk.tries] attempts: expected an integer ≥ 1",
        ),
        (table(consult={"deadline": 3}), "cashier.toml: [consult] unknown key 'deadline'; did you mean 'deadline_ms'?"),
        (table(sorces={}), "cashier.toml: unknown key 'sorces'; did you mean 'sources'?"),
        ({"sources": {"cards": {"url": URL}}}, "cashier.toml: [sources] unknown key 'cards'; did you mean 'card'?"),
        (
            {"sources": {"xyz": {"url": URL}}},
            f"[sources] unknown key 'xyz'; known keys are {', '.join(SOURCE_NAMES)}, risk, engine, acquirer",
        ),
        ({"sources": {"card": 3}}, "cashier.toml: [sources] card: expected a table, got an integer"),
        ({"sources": {"card": {}}}, "cashier.toml: [sources.card] url is missing"),
        (table(consult={"deadline_ms": "150"}), "cashier.toml: [consult] deadline_ms: expected an integer, got a text"),
        (table(consult={"deadline_ms": 0}), "cashier.toml: [consult] deadline_ms: expected an integer ≥ 5"),
        (table(consult={"reserve_ms": 150}), "[consult] reserve_ms = 150 leaves nothing of deadline_ms = 150"),
        (table(consult={"deadline_ms": 2000}), "[consult] deadline_ms = 2000 is above max_deadline_ms = 1000"),
        (table(consult={"locale": "fr"}), "there is no [fr], which is the default locale"),
        (table(server={"host": "0.0.0.0"}), '[auth] mode = "none" admits every caller on 0.0.0.0'),
        (table(tokens={"secrets": ["short"]}), "[tokens] secrets: number 1 has 5 bytes, at least 32 are needed"),
        (
            table(tokens={"secrets": ["${NOPE}"]}),
            "cashier.toml: [tokens] secrets[0] refers to ${NOPE}, which is not set in the environment; set it",
        ),
        ({"sources": {"order": {"url": URL}}}, "[sources.card] is missing; it needs a url"),
        ({"sources": {**table()["sources"], "card": {"url": []}}}, "[sources.card] url names no address"),
        ({"sources": {**table()["sources"], "card": {"url": [URL, URL]}}}, "[sources.card] url names an address twice"),
        (table(consult={"reserve_ms": 1}), "[consult] reserve_ms = 1 is less than our own work takes"),
        (
            source(timeout_ms=148),
            "[sources.card] timeout_ms = 148 cannot be kept: deadline_ms = 150 less reserve_ms = 3 leaves 147",
        ),
        (
            source(hedge={"quantile_bps": 9000}),
            "means 10 % extra calls, more than [consult] extra_calls_bps = 500 allows; 9500 would fit",
        ),
        (source(hedge={"least_ms": 100}), "hedge least_ms = 100 is never reached within timeout_ms = 100"),
        (source(breaker={"open_s": 50}), "breaker open_s = 50 is above open_max_s = 5"),
        (source(limiter={"start": 500}), "limiter start = 500 is not between least = 1 and most = 400"),
        (source(cache={"fresh_s": 30, "stale_s": 5}), "cache: stale_s = 5 is below fresh_s = 30"),
        (
            source(batch={"path": "/batch/cards", "wait_ms": 100}),
            "batch wait_ms = 100 leaves nothing of timeout_ms = 100",
        ),
        (source(batch={"max": 5}), "path"),
        (table(cache={"shared": "http://127.0.0.1"}), "[cache] shared"),
        (table(shed={"refuse_lag_ms": 6}), "[shed] refuse_lag_ms must be at least twice dim_lag_ms"),
        ({"sources": {**table()["sources"], "card": {"url": "ftp://x"}}}, "[sources.card]"),
        (
            {"sources": {**table()["sources"], "card": {"url": "x", "transport": "local"}}},
            'takes one url, "package.module:function"',
        ),
        (
            {"sources": {**table()["sources"], "card": {"url": "no.such:thing", "transport": "local"}}},
            "cannot be imported",
        ),
        ({"sources": {**table()["sources"], "card": {"url": "json:nope", "transport": "local"}}}, "json has no nope"),
        (
            {"sources": {**table()["sources"], "card": {"url": URL, "adapter": "json"}}},
            "has no function request and no parse",
        ),
        (
            {"sources": {**table()["sources"], "card": {"url": URL, "aiohttp": {}}}},
            '[sources.card.aiohttp] is for transport = "aiohttp", but this source has "http1"',
        ),
        (
            {"sources": {**table()["sources"], "card": {"url": URL, "http1": {"conections": 3}}}},
            "[sources.card.http1] unknown key 'conections'; did you mean 'connections'?",
        ),
        (
            {
                "sources": {
                    **table()["sources"],
                    "card": {"url": "https://x", "http1": {"ca_file": "/no/such/file.pem"}},
                }
            },
            "/no/such/file.pem",
        ),
    ],
)
def test_a_fault_names_its_key_and_its_remedy(settings: dict[str, Any], fault: str) -> None:
    assert fault in faults(settings)


def test_all_unknown_keys_are_reported_at_once() -> None:
    reported = faults(table(consult={"deadline": 3, "grace": 4}, servers={}))
    assert all(key in reported for key in ("'deadline'", "'grace'", "'servers'"))


def test_a_variable_is_replaced_by_its_value() -> None:
    given = table(tokens={"secrets": ["${SECRET}"]})
    assert configuration(given, "", environ={"SECRET": "s" * 32}).settings.tokens.secrets == ("s" * 32,)


def test_a_file_beside_the_configuration_overrides_single_values(tmp_path: Path) -> None:
    (tmp_path / "cashier.toml").write_text("")
    (tmp_path / "methods.toml").write_text('[CARD]\nfee_bps = 120\nname = { en = "Any card" }\n')
    (tmp_path / "ranking.toml").write_text("saving = 1\n")
    (tmp_path / "texts.toml").write_text('[en.reasons]\nNO_CHANNEL = "Not here."\n')
    config = load(tmp_path / "cashier.toml")
    card = config.catalog.methods["CARD"]  # type: ignore[index]  # a StrEnum's value is its key
    names = [config.catalog.name(Kind.CARD, locale) for locale in ("en", "zh-CN")]
    assert (card.fee_bps, names) == (120, ["Any card", "银行卡支付"])
    assert config.catalog.title(Kind.CARD, "en") == "Credit or debit card"
    assert (config.weights.saving, config.weights.fee) == (1, 20_000)
    assert config.catalog.texts["en"].reasons["NO_CHANNEL"] == "Not here."  # type: ignore[index]  # as above


@pytest.mark.parametrize("locale", ["en", "zh-CN", "ar"])
@pytest.mark.parametrize("code", sorted(RETURN_PROMISES))
def test_a_plain_text_replaces_a_promise_of_return_except_where_money_has_no_way_back(
    tmp_path: Path, code: MessageCode, locale: str
) -> None:
    """Such a file was complete before kinds without a way back had texts of their own."""
    packaged_text = packaged("texts.toml")[locale]["payments"][code][Form.NO_WAY_BACK]
    (tmp_path / "cashier.toml").write_text("")
    (tmp_path / "texts.toml").write_text(f'[{locale}.payments]\n{code} = "Own."\n')
    own = load(tmp_path / "cashier.toml").catalog.texts[locale].payments[code]
    assert (text_of(own), text_of(own, Form.NO_WAY_BACK)) == ("Own.", packaged_text)
    (tmp_path / "texts.toml").write_text(f'[{locale}.payments]\n{code} = {{ no_way_back = "Ask us." }}\n')
    own = load(tmp_path / "cashier.toml").catalog.texts[locale].payments[code]
    assert text_of(own, Form.NO_WAY_BACK) == "Ask us."
    assert text_of(own) == packaged("texts.toml")[locale]["payments"][code][Form.GENERAL]


def test_a_locale_of_an_operator_is_completed_in_english_with_a_warning(tmp_path: Path) -> None:
    """Such a file was complete before the packaged ones gained codes and kinds."""
    tables = packaged("texts.toml")["en"]
    own = {name: dict.fromkeys(list(tables[name])[:-3], "Own.") for name in ("reasons", "blocked", "payments")}
    own |= {name: dict.fromkeys(tables[name], "Own.") for name in ("card_types", "accounts")}
    lines = ["[th]", 'combined = "Own."']
    for name, texts in own.items():
        lines += [f"[th.{name}]", *(f'{code} = "{text}"' for code, text in texts.items())]
    (tmp_path / "cashier.toml").write_text("")
    (tmp_path / "texts.toml").write_text("\n".join(lines))
    named = "".join(f'[{kind}]\nname = {{ th = "N" }}\ntitle = {{ th = "T" }}\n' for kind in list(Kind)[:-2])
    (tmp_path / "methods.toml").write_text(named)
    config = load(tmp_path / "cashier.toml")
    wording, english = config.catalog.texts["th"], config.catalog.texts["en"]
    for name in own:
        mine, packaged_texts = getattr(wording, name), getattr(english, name)
        assert {code for code in mine if text_of(mine[code]) == "Own."} == set(own[name])
        assert all(mine[code] == packaged_texts[code] for code in packaged_texts if code not in own[name])
    assert {config.catalog.name(kind, "th") for kind in list(Kind)[:-2]} == {"N"}
    assert config.catalog.name(Kind.FREE, "th") == "Nothing to pay"
    warned = [warning for warning in config.warnings if "[th." in warning]
    assert [warning.partition("]")[0] for warning in warned] == [
        f"texts.toml: [th.{name}" for name in ("reasons", "blocked", "payments", "kinds")
    ]
    assert warned[-1].endswith("has no INSTALMENT, FREE: payers read English there")


@pytest.mark.parametrize("kind", ["VA", "OTC", "NET_BANKING", "WALLET", "MERCHANT_QR", "INSTALMENT"])
def test_an_own_lifetime_below_the_packaged_need_of_time_still_starts(tmp_path: Path, kind: str) -> None:
    (tmp_path / "cashier.toml").write_text("")
    needs_s = packaged("methods.toml")[kind]["needs_s"]
    for lifetime_s in (1, needs_s - 1, needs_s, needs_s + 1):
        (tmp_path / "methods.toml").write_text(f"[{kind}]\nexpires_in_s = {lifetime_s}\n")
        terms = load(tmp_path / "cashier.toml").catalog.methods[Kind(kind)]
        assert (terms.expires_in_s, terms.needs_s) == (lifetime_s, min(lifetime_s, needs_s))
    (tmp_path / "methods.toml").write_text(f"[{kind}]\nexpires_in_s = 9\nneeds_s = 10\n")
    with pytest.raises(ConfigurationError, match="no payer would have enough time"):
        load(tmp_path / "cashier.toml")


def test_a_plain_text_replaces_every_other_form(tmp_path: Path) -> None:
    (tmp_path / "cashier.toml").write_text("")
    (tmp_path / "texts.toml").write_text('[en.payments]\nCHALLENGE = "Own."\n[en.reasons]\nCARD_UNBOUND = "Gone."\n')
    wording = load(tmp_path / "cashier.toml").catalog.texts["en"]
    assert text_of(wording.payments[MessageCode.CHALLENGE], Form.SMS_OTP) == "Own."
    assert text_of(wording.reasons[ReasonCode.CARD_UNBOUND], Form.NO_CARD) == "Gone."


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("texts.toml", 'en = "x"\n', "expected a table"),
        ("texts.toml", '[en]\npayments = "x"\n', "payments: expected a table"),
        ("texts.toml", '[en.payments]\nCLOSED = ""\n', "expected a text of length"),
        ("methods.toml", "[CARDS]\nfee_bps = 1\n", "unknown key 'CARDS'; did you mean 'CARD'?"),
        ("methods.toml", "[CARD]\nfee = 1\n", "[CARD] unknown key 'fee'; did you mean 'fee_bps'?"),
        ("methods.toml", '[CARD]\ntitle = { en = "{bank}" }\n', "CARD.title en: '{bank}' cannot be filled in"),
        ("methods.toml", '[CARD]\ntitle = "Card"\n', "title: expected a table"),
        ("texts.toml", '[en.kinds.CARD]\ntitle = "{bank}"\n', "[en.kinds] title of CARD: '{bank}' cannot be filled in"),
        ("texts.toml", '[fr]\ncombined = "x"\n', "texts.toml"),
        ("texts.toml", '[en.reasons]\nNO_CHANEL = "x"\n', "unknown key 'NO_CHANEL'; did you mean 'NO_CHANNEL'?"),
        ("ranking.toml", "savings = 1\n", "unknown key 'savings'; did you mean 'saving'?"),
        ("ranking.toml", "saving = \n", "is not valid TOML"),
    ],
)
def test_a_fault_in_a_file_beside_names_that_file(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (tmp_path / "cashier.toml").write_text("")
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path / "cashier.toml")
    assert fault in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_the_faults_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    texts = {
        "cashier.toml": '[server]\nport = "x"\nworkers = 0\n[sources.card]\n',
        "methods.toml": '[CARD]\nfee_bps = "x"\n[WALLET]\nneeds_s = 0\n',
        "texts.toml": "[en\n",
        "ranking.toml": "saving = 0.5\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "routing.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path / "cashier.toml")
    found = [fault.removeprefix(f"{tmp_path}/") for fault in raised.value.faults]
    starts = [
        "cashier.toml: [server] port: ",
        "cashier.toml: [server] workers: ",
        "cashier.toml: [sources.card] url is missing",
        "methods.toml: [WALLET] needs_s: ",
        "methods.toml: [CARD] fee_bps: ",
        "texts.toml is not valid TOML",
        "ranking.toml: saving: ",
        "routing.toml is not UTF-8",
    ]
    assert len(found) == len(starts)
    for fault, start in zip(found, starts, strict=True):
        assert fault.startswith(start)


@pytest.mark.parametrize("name", ["methods.toml", "texts.toml", "ranking.toml", "routing.toml"])
@pytest.mark.parametrize(("target", "says"), [("gone.toml", "its link leads nowhere"), (None, "cannot be read")])
def test_a_file_beside_that_is_a_broken_link_is_not_left_out(
    tmp_path: Path, name: str, target: str | None, says: str
) -> None:
    """Payers would see the packaged values, and pay by the packaged routes."""
    (tmp_path / "cashier.toml").write_text("")
    (tmp_path / name).symlink_to(target or name)
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path / "cashier.toml")
    (fault,) = raised.value.faults
    assert fault.startswith(f"{tmp_path / name}: ")
    assert says in fault


def test_a_missing_or_binary_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file; name one with --config"):
        load(tmp_path / "none.toml")
    (tmp_path / "cashier.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        load(tmp_path / "cashier.toml")


def test_a_secret_is_generated_once_and_shared_with_worker_processes() -> None:
    environ = {"CASHIER_TOKEN_SECRET": ""}  # empty counts as unset
    (first,), generated = token_secrets(TokenSettings(), environ)
    assert generated
    assert token_secrets(TokenSettings(), environ) == ((first,), False)
    assert token_secrets(TokenSettings(secrets=("s" * 32,)), environ) == (("s" * 32,), False)


def test_a_reload_applies_accept_settings_and_names_what_takes_a_restart() -> None:
    given = services("risk", "engine", "acquirer")
    cashier = Cashier(config=configuration(given, "cashier.toml"))
    before = cashier.payments
    moved = {"sources": {**given["sources"], "engine": {"url": "http://127.0.0.1:1"}}, "accept": {"look_ms": 7}}
    assert cashier.reload(configuration(moved, "cashier.toml")) == ("[sources.engine] has changed",)
    assert cashier.payments is before
    assert cashier.config.settings.accept.look_ms == 7
