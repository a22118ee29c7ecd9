"""A company without a figure leaves it out: nothing fails, and nothing is preferred for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier import Cashier
from cashier.consultation.source_table import SOURCE_SPECS
from cashier.domain.facts import Channel, ChannelStatus
from cashier.domain.money import BPS
from cashier.domain.order import ConsultRequest
from cashier.domain.pay_method import Health, Kind
from cashier.domain.routing_rules import RankBy, RoutingRule
from cashier.fanout.ask import SourceStatus
from cashier.sandbox import CASES, LocalUpstreams, World, weather_named
from cashier.sources.channel import CHANNEL
from tests.domain.builders import channel, cny, one_of_each
from tests.domain.test_routing import decide
from tests.sources.test_sources import answer_of, parsed

FIGURE = st.none() | st.integers(0, BPS)
ROWS = st.lists(
    st.tuples(st.sampled_from((Kind.WALLET, Kind.VA, Kind.CARD)), FIGURE, FIGURE, st.booleans()), min_size=1, max_size=8
)
Row = tuple[Kind, int | None, int | None, bool]
WORLD = one_of_each()


def row_of(each: Channel, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(each) | changes
    return {name: value for name, value in fields.items() if value is not None}


def read(rows: Sequence[dict[str, Any]]) -> dict[str, Channel]:
    channels: dict[str, Channel] = CHANNEL.parse(200, json.dumps({"channels": rows}).encode(), {}).by_id
    return channels


def channels_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        row_of(
            channel(kind, f"P{index}", f"ch_{index}"),
            cost_bps=cost,
            success_bps=success,
            fixed_cost={"currency": "CNY", "value": 20} if fixed else None,
        )
        for index, (kind, cost, success, fixed) in enumerate(rows)
    ]


@given(ROWS)
def test_an_unstated_figure_is_the_mean_of_the_stated_ones_of_its_kind(rows: list[Row]) -> None:
    read_rows = read(channels_of(rows))
    for index, (kind, cost, success, fixed) in enumerate(rows):
        found = read_rows[f"ch_{index}"]
        assert found.success_bps == (expected(rows, kind, 2, BPS) if success is None else success)
        assert found.cost_bps == ((0 if fixed else expected(rows, kind, 1, 0)) if cost is None else cost)


def expected(rows: list[Row], kind: Kind, column: int, otherwise: int) -> int:
    of_kind = [row[column] for row in rows if row[0] is kind and row[column] is not None]
    stated: list[Any] = of_kind or [row[column] for row in rows if row[column] is not None]
    return sum(stated) // len(stated) if stated else otherwise


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_figure(rows: list[Row], random: Any) -> None:
    shuffled = channels_of(rows)
    random.shuffle(shuffled)
    assert read(shuffled) == read(channels_of(rows))


@given(st.lists(st.integers(1_000, 200_000), min_size=3, max_size=3))
def test_without_any_figure_methods_and_routes_are_as_with_equal_ones(amounts: list[int]) -> None:
    bare = [row_of(each, cost_bps=None, success_bps=None) for each in WORLD.channels]
    equal = [row_of(each, cost_bps=0, success_bps=BPS) for each in WORLD.channels]
    for value in amounts:
        world = WORLD.but(order=structs.replace(WORLD.order, amount=cny(value)))
        unstated, stated = (world.but(channels=tuple(read(rows).values())).methods() for rows in (bare, equal))
        assert unstated == stated
    cards = [row_of(channel(Kind.CARD, name, name)) for name in "abc"]
    bare = [{name: value for name, value in row.items() if not name.endswith("_bps")} for row in cards]
    for by in RankBy:
        rule = RoutingRule("r", by=by)
        chosen = [
            decide(tuple(read(rows).values()), rule)
            for rows in (bare, [row | {"cost_bps": 0, "success_bps": BPS} for row in cards])
        ]
        assert chosen[0] == chosen[1]


def test_a_channel_without_a_cost_is_not_the_cheapest_for_it() -> None:
    rows = [row_of(channel(Kind.CARD, name, name), cost_bps=cost) for name, cost in (("a", 20), ("b", None), ("c", 80))]
    assert decide(tuple(read(rows).values()), RoutingRule("r", by=RankBy.COST)).channel_id == "a"


@pytest.mark.parametrize(
    ("status", "health"), [(ChannelStatus.OPEN, Health.UP), (ChannelStatus.MAINTENANCE, Health.DOWN)]
)
def test_bad_figures_of_others_say_nothing_about_the_health_of_a_channel(status: ChannelStatus, health: Health) -> None:
    rows = [
        row_of(each, success_bps=None if each.kind == Kind.WALLET else 1_000, status=status) for each in WORLD.channels
    ]
    method = WORLD.but(channels=tuple(read(rows).values())).method("WALLET:ALIPAY")
    assert method.health is health
    assert not any(reason.startswith("FAILS") for reason in method.rank_reasons)


@pytest.mark.parametrize(("source", "field"), [("order", "category"), ("merchant", "mcc")])
async def test_what_only_informs_may_be_absent_or_null(source: str, field: str) -> None:
    found = next(spec.source for spec in SOURCE_SPECS if spec.source.name == source)
    answer = await answer_of(source)
    without = {name: value for name, value in answer.items() if name != field}
    for body in (without, without | {field: None}):
        fact = parsed(found, body)
        assert getattr(fact, field) is None
        assert WORLD.but(**{source: fact}).ids()


def without_figures(answer: Any) -> Any:
    match answer:
        case dict():
            kept = answer.keys() - {"success_bps", "cost_bps", "mcc", "category"}
            return {name: without_figures(answer[name]) for name in kept}
        case list():
            return [without_figures(each) for each in answer]
    return answer


async def test_a_company_without_figures_is_offered_the_same_methods() -> None:
    upstreams = LocalUpstreams(World(), weather_named("still"))

    def bare(name: str) -> Any:
        async def read_bare(**asked: Any) -> Any:
            return without_figures(await upstreams[name](**asked))

        return read_bare

    offered = []
    for sources in (dict(upstreams), {name: bare(name) for name in upstreams}):
        async with Cashier(sources=sources) as cashier:
            answer = await cashier.consult(msgspec.convert(CASES["chinese_shop"].request, ConsultRequest))
            assert {report.status for report in answer.sources} == {SourceStatus.FRESH}
            offered.append({(each.method_id, each.availability, each.amount) for each in answer.methods})
    assert offered[0] == offered[1]
