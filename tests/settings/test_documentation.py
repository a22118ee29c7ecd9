"""`config/README.md` lists every key with the type, default and bounds that the settings structs
have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import NODEFAULT, Struct, inspect

from cashier.consultation.source_table import SOURCE_SPECS
from cashier.core import Cashier
from cashier.domain.catalog import Terms
from cashier.domain.channel_record import LearningSettings, SicknessSettings
from cashier.domain.pay_method import Kind
from cashier.domain.ranking import Weights
from cashier.domain.routing_rules import Routing
from cashier.domain.wording import Wording
from cashier.settings.loader import configuration, load
from cashier.settings.schema import Settings

DOCUMENT = (Path(__file__).parent.parent.parent / "config/README.md").read_text("utf-8")
# The shapes of cashier.toml, methods.toml, texts.toml, ranking.toml and routing.toml.
ROOTS = (Settings, Terms, Wording, Weights, Routing)
HEADINGS = {
    "Settings": "cashier.toml",
    "ServerSettings": "`[server]`",
    "AuthSettings": "`[auth]`",
    "OperationsSettings": "`[operations]`",
    "PagesSettings": "`[pages]`",
    "BrandSettings": "`[pages.brand]`",
    "LinksSettings": "`[pages.links]`",
    "VaultSettings": "`[pages.vault]`",
    "CodeSettings": "`[pages.codes.NAME]`",
    "ConsultSettings": "`[consult]`",
    "AcceptSettings": "`[accept]`",
    "CachingSettings": "`[cache]`",
    "ShedSettings": "`[shed]`",
    "LimitSettings": "`[limits]`",
    "TokenSettings": "`[tokens]`",
    "TelemetrySettings": "`[telemetry]`",
    "MerchantSettings": "`[merchants.NAME]`",
    "SourcesSettings": "`[sources]`",
    "SourceSettings": "`[sources.NAME]`",
    "UpstreamAuthSettings": "`[sources.NAME.auth]`",
    "BearerSettings": "`[sources.NAME.auth.bearer]`",
    "ClientCredentialsSettings": "`[sources.NAME.auth.oauth2]`",
    "HmacSettings": "`[sources.NAME.auth.hmac]`",
    "Rsa2Settings": "`[sources.NAME.auth.rsa2]`",
    "WechatPaySettings": "`[sources.NAME.auth.wechat_pay]`",
    "CacheSettings": "`[sources.NAME.cache]`",
    "HedgeSettings": "`[sources.NAME.hedge]`",
    "BreakerSettings": "`[sources.NAME.breaker]`",
    "LimiterSettings": "`[sources.NAME.limiter]`",
    "BatchSettings": "`[sources.NAME.batch]`",
    "DiscoverSettings": "`[sources.NAME.discover]`",
    "Http1Settings": "`[sources.NAME.http1]`",
    "AiohttpSettings": "`[sources.NAME.aiohttp]`",
    "ServiceSettings": "`[sources.risk]`, `[sources.engine]`, `[sources.acquirer]`",
    "RetrySettings": "`[sources.engine.tries]`, `[sources.acquirer.tries]`",
    "Terms": "methods.toml",
    "Wording": "texts.toml",
    "KindWording": "`[LOCALE.kinds.KIND]`",
    "ProblemWording": "`[LOCALE.problems.CODE]`",
    "Formats": "`[LOCALE.formats]`",
    "Weights": "ranking.toml",
    "Routing": "routing.toml",
    "RoutingRule": "`[[rule]]`",
    "RuleCondition": "`[rule.when]`",
    "LearningSettings": "`[learning]`",
    "SicknessSettings": "`[sick]`",
    "FailureAttribution": "`[blame]`",
}
UNITS = {"_ms": "ms", "_s": "s", "_bps": "bps", "_bytes": "bytes"}
NONE = "–"


class Row(NamedTuple):
    """The cells of a key's row before its effect."""

    type: str
    default: str
    bounds: str


def structs(info: inspect.Type) -> Iterator[inspect.StructType]:
    """The struct types within a type, itself included."""
    match info:
        case inspect.StructType():
            yield info
            for field in info.fields:
                yield from structs(field.type)
        case inspect.UnionType():
            for option in info.types:
                yield from structs(option)
        case inspect.VarTupleType() | inspect.FrozenSetType():
            yield from structs(info.item_type)
        case inspect.DictType():
            yield from structs(info.value_type)


STRUCTS = {struct.cls.__name__: struct for root in ROOTS for struct in structs(inspect.type_info(root))}


def type_text(info: inspect.Type) -> str:
    match info:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "integer"
        case inspect.FloatType():
            return "number"
        case inspect.StrType() | inspect.EnumType():
            return "text"
        case inspect.LiteralType():
            return " or ".join(toml(value) for value in info.values)
        case inspect.VarTupleType() | inspect.FrozenSetType():
            return f"list of {type_text(info.item_type)}s"
        case inspect.StructType() | inspect.DictType():
            return "table"
        case inspect.UnionType():
            return " or ".join(type_text(option) for option in info.types if not isinstance(option, inspect.NoneType))
    raise AssertionError(f"no words for {info}")


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def default_text(field: inspect.Field) -> str:
    """A dash without a value, or for a table: its keys have the defaults."""
    if field.required:
        return "required"
    empty = field.default in (None, (), frozenset(), NODEFAULT) or isinstance(field.default, Struct)
    return NONE if empty else toml(field.default)


def bounds_text(info: inspect.Type) -> str | None:
    """None where the bounds are words, as for a pattern."""
    if isinstance(info, inspect.UnionType):
        bounds = {bounds_text(option) for option in info.types} - {NONE}
        return bounds.pop() if bounds else NONE
    if isinstance(info, inspect.IntType | inspect.FloatType):
        if info.gt is not None:
            return f"> {info.gt}" + (f", ≤ {info.le}" if info.le is not None else "")
        if info.le is not None:
            return f"{info.ge} to {info.le}"
        return f"≥ {info.ge}" if info.ge is not None else NONE
    return None if getattr(info, "pattern", None) or getattr(info, "min_length", None) else NONE


def section(heading: str) -> str:
    """The text under the heading, to the next one."""
    headings = [line for line in DOCUMENT.splitlines() if re.match(r"#+ ", line)]
    (line,) = [line for line in headings if line.lstrip("#").strip().partition(":")[0] == heading]
    text = DOCUMENT.partition(f"{line}\n")[2]
    return re.split(r"^#+ ", text, maxsplit=1, flags=re.MULTILINE)[0]


def documented(heading: str) -> dict[str, Row]:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| .+ \|$", section(heading), re.MULTILINE)
    return {key: Row(*cells) for key, *cells in rows}


def test_every_settings_struct_has_a_section() -> None:
    assert set(STRUCTS) == set(HEADINGS)


@pytest.mark.parametrize("name", HEADINGS)
def test_every_key_is_documented_with_its_type_default_and_bounds(name: str) -> None:
    rows = documented(HEADINGS[name])
    fields = STRUCTS[name].fields
    assert list(rows) == [field.encode_name for field in fields]
    for field in fields:
        row, bounds = rows[field.encode_name], bounds_text(field.type)
        unit = next((unit for suffix, unit in UNITS.items() if field.encode_name.endswith(suffix)), None)
        assert row.type == type_text(field.type) + (f", {unit}" if unit else ""), field.name
        assert row.default == default_text(field), field.name
        assert row.bounds == bounds if bounds is not None else row.bounds != NONE, field.name


def test_the_defaults_of_each_source_are_those_of_the_source_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\d+) \| (.*) \|$", section("Defaults by source"), re.MULTILINE)
    assert rows == [
        (
            spec.source.name,
            spec.importance.value,
            str(spec.timeout_ms),
            f"{c.fresh_s:g} / {c.stale_s:g} / {c.error_s:g} / {c.negative_s:g}" if (c := spec.cache).on else "never",
        )
        for spec in SOURCE_SPECS
    ]


def test_the_packaged_files_have_the_documented_defaults() -> None:
    packaged = configuration({}, "")
    assert packaged.weights == Weights()
    assert packaged.routing.learning == LearningSettings()
    assert packaged.routing.sick == SicknessSettings()
    assert all(f"`{kind}`" in section("methods.toml") for kind in Kind)


async def test_the_minimal_example_starts(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", section("A minimal configuration"), re.DOTALL)
    path = tmp_path / "cashier.toml"
    path.write_text(example)
    async with Cashier(config=load(path)) as cashier:
        assert cashier.payments is None
