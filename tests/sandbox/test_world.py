"""The world agrees with its cases, its rules and the contract."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec
import pytest

from cashier.sandbox.demo_cases import CASES, DemoCase
from cashier.sandbox.generated_population import FIRST_NUMBER
from cashier.sandbox.read_sources import SourceReader
from cashier.sandbox.records import Json
from cashier.sandbox.source_table import SOURCE_READS
from cashier.sandbox.world import World

from . import contract
from .hand_clock import NOON, HandClock

GENERATED = (FIRST_NUMBER, FIRST_NUMBER + 1, 123_456, 999_999_999_999)
MARKETS = (("CNY", "CN"), ("IDR", "ID"), ("JPY", "JP"), ("KWD", "KW"))


def parameter_sets(world: World) -> Iterator[Json]:
    """Parameters for all named records and some generated ones."""
    for order in (*world.population.named_orders, *(world.population.generated.order(n) for n in GENERATED)):
        yield {**order["amount"], "country": order["country"], "user_id": "u_1", **order}
    for user in world.population.named_users:
        yield {
            "user_id": user.member["user_id"],
            "order_id": "o_1001",
            "merchant_id": "m_1",
            "currency": "CNY",
            "country": "CN",
            "value": 1,
        }


def read_all(world: World, request: Json) -> dict[str, Json | None]:
    """The answer of every source to a consultation without claims."""
    order = world.acquirer.order(request["order_id"]) or {"amount": {"currency": "CNY", "value": 1}, "country": "CN"}
    lookups = SourceReader(world)
    answers = {
        source: lookups.look_up(source, {**order["amount"], "country": order["country"], **request})
        for source in SOURCE_READS
    }
    return {source: answer.body if answer.status == 200 else None for source, answer in answers.items()}


def ids(world: World) -> Iterator[str]:
    for user in world.population.named_users:
        yield user.member["user_id"]
        yield from (card["card_id"] for card in user.cards or ())
        yield from (agreement["agreement_id"] for agreement in user.agreements)
        yield from (account["account_id"] for account in user.accounts or ())
        yield from (promotion["promotion_id"] for promotion in user.promotions or ())
    yield from (order["order_id"] for order in world.population.named_orders)
    yield from (merchant["merchant_id"] for merchant in world.population.named_merchants)


def test_every_answer_of_every_source_meets_the_contract(world: World) -> None:
    lookups = SourceReader(world)
    answered = dict.fromkeys(SOURCE_READS, 0)
    for parameters in parameter_sets(world):
        for source in SOURCE_READS:
            answer = lookups.look_up(source, parameters)
            assert answer.status in (200, 404), answer
            if answer.status == 200:
                msgspec.json.decode(answer.encoded, type=contract.READ_TYPES[source])
                answered[source] += 1
    assert all(count > 5 for count in answered.values()), answered


def test_ids_are_unique(world: World) -> None:
    seen = list(ids(world))
    assert len(seen) == len(set(seen)) > 60


def test_channel_ids_are_unique(world: World) -> None:
    listed = [channel["channel_id"] for market in MARKETS for channel in world.population.channels(*market)]
    assert len(listed) == len(set(listed)) == len(world.population.all_channels)


@pytest.mark.parametrize("market", MARKETS)
def test_a_channel_has_minimum_and_maximum_in_its_own_currency(world: World, market: tuple[str, str]) -> None:
    for channel in world.population.channels(*market):
        assert channel["currencies"] == [channel["min"]["currency"]] == [channel["max"]["currency"]] == [market[0]]
        assert channel["min"]["value"] < channel["max"]["value"]
        assert ("until" in channel) == (channel["status"] == "MAINTENANCE")


def test_quotas_and_promotions_are_consistent(world: World) -> None:
    for user in (*world.population.named_users, *(world.population.generated.user(n) for n in GENERATED)):
        for quota in user.quotas or ():
            for period in (quota[name] for name in ("daily", "monthly") if name in quota):
                assert period["used"]["value"] <= period["limit"]["value"]
                assert period["used"]["currency"] == period["limit"]["currency"]
        for promotion in user.promotions or ():
            assert ("amount_off" in promotion) != ("percent_off_bps" in promotion)
            off = promotion.get("amount_off") or promotion["cap"]
            assert off["currency"] == promotion["threshold"]["currency"]


def test_agreements_and_quotas_name_channels_and_cards_that_exist(world: World) -> None:
    for user in (*world.population.named_users, *(world.population.generated.user(n) for n in GENERATED)):
        cards = {card["card_id"] for card in user.cards or ()}
        assert all(world.population.channel(agreement["channel_id"]) for agreement in user.agreements)
        for scope in (quota["scope"] for quota in user.quotas or ()):
            assert scope.get("card_id", next(iter(cards), None)) in cards | {None}
            assert "channel_id" not in scope or world.population.channel(scope["channel_id"])
        last_used = user.member.get("last_used")
        assert (
            last_used is None
            or last_used["instrument_id"] in cards
            or world.population.channel(last_used["instrument_id"])
        )


def test_the_seed_determines_the_world(clock: HandClock) -> None:
    def answers(seed: int) -> list[dict[str, Json | None]]:
        world = World(seed=seed, clock=clock)
        return [
            read_all(world, request)
            for request in (CASES["chinese_shop"].request, world.population.generated.consult_request(424_242))
        ]

    assert answers(1) == answers(1)
    assert answers(1)[1] != answers(2)[1]
    assert answers(1)[0] == answers(2)[0], "the named records do not depend on the seed"


def test_times_are_relative_to_the_start_of_the_world(world: World, clock: HandClock) -> None:
    order = world.acquirer.order("o_1001")
    clock.advance(timedelta(days=300))
    later = World(seed=7, clock=clock).acquirer.order("o_1001")
    assert order is not None
    assert later is not None
    assert datetime.fromisoformat(order["expires_at"]) == NOON + timedelta(hours=24)
    assert order["expires_at"].endswith("+08:00")
    assert datetime.fromisoformat(later["expires_at"]) == clock.now + timedelta(hours=24)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_case_has_a_sentence_and_a_valid_request(case: DemoCase) -> None:
    msgspec.convert(case.request, contract.ConsultBody)
    assert case.sentence.endswith(".")
    assert "\n" not in case.sentence


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)
def test_a_case_has_only_the_unknown_record_of_its_name(world: World, name: str, case: DemoCase) -> None:
    answers = read_all(world, case.request)
    missing = {source for source in ("order", "merchant", "member") if answers[source] is None}
    expected = {"order_unknown": {"order"}, "merchant_unknown": {"merchant"}, "user_unknown": {"member"}}
    expected["walk_in"] = {"member"}
    assert missing == expected.get(name, set())


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)
def test_a_case_has_only_the_blockage_of_its_name(world: World, name: str, case: DemoCase) -> None:
    if name.endswith("_unknown"):
        assert not set(blockages(world, case.request)) - {name}
    else:
        assert blockages(world, case.request) == ([name] if name in BLOCKED else [])


BLOCKED = {
    "order_paid",
    "order_closed",
    "order_expired",
    "order_in_progress",
    "amount_mismatch",
    "country_mismatch",
    "product_mismatch",
    "order_merchant_mismatch",
    "order_user_mismatch",
    "user_frozen",
    "user_closed",
    "merchant_suspended",
    "product_not_contracted",
}


def blockages(world: World, request: Json) -> list[str]:
    """The blockages of a request, as the contract's codes in lower case."""
    answers = read_all(world, request)
    order, merchant, member = answers["order"], answers["merchant"], answers["member"]
    conditions = {
        "order_paid": order and order["status"] == "PAID",
        "order_closed": order and order["status"] == "CLOSED",
        "order_in_progress": order and order["status"] == "PAYING",
        "order_expired": order and order["status"] == "PENDING" and datetime.fromisoformat(order["expires_at"]) <= NOON,
        "amount_mismatch": order and request.get("amount", order["amount"]) != order["amount"],
        "country_mismatch": order and request.get("country", order["country"]) != order["country"],
        "product_mismatch": order and request["product"] != order["product"],
        "order_merchant_mismatch": order and request["merchant_id"] != order["merchant_id"],
        "order_user_mismatch": order and order.get("user_id", request.get("user_id")) != request.get("user_id"),
        "user_frozen": member and member["status"] == "FROZEN",
        "user_closed": member and member["status"] == "CLOSED",
        "merchant_suspended": merchant and merchant["status"] == "SUSPENDED",
        "product_not_contracted": merchant and request["product"] not in merchant["products"],
    }
    return [code for code, holds in conditions.items() if holds]


def test_every_blockage_has_a_case() -> None:
    assert set(CASES) >= BLOCKED


def test_the_chinese_payer_has_something_of_everything(world: World) -> None:
    answers = read_all(world, CASES["chinese_shop"].request)
    cards = {card["card_id"]: card for card in (answers["card"] or {})["cards"]}
    closed = {
        channel["provider"] for channel in world.population.channels("CNY", "CN") if channel["status"] == "MAINTENANCE"
    }
    assert cards["c_2"]["last4"] == "1014"
    assert (answers["member"] or {})["last_used"] == {"kind": "QUICK_PAY", "instrument_id": "c_2"}
    assert [card_id for card_id, card in cards.items() if card["expiry"] < "2026-11"] == ["c_3"]
    assert [card_id for card_id, card in cards.items() if card["status"] == "FROZEN"] == ["c_4"]
    assert [card_id for card_id, card in cards.items() if card["bank"] in closed] == ["c_5"]
    balance = (answers["balance"] or {})["accounts"][0]["available"]["value"]
    assert 3_500 <= balance < 12_800 - 1_000 - 288


def test_china_has_26_channels_of_which_one_is_closed_one_in_maintenance_and_one_unreliable(world: World) -> None:
    channels = world.population.channels("CNY", "CN")
    assert len(channels) == 26
    assert [channel["status"] for channel in channels if channel["status"] != "OPEN"] == ["MAINTENANCE", "CLOSED"]
    assert [channel["channel_id"] for channel in channels if channel["success_bps"] < 9_000] == ["ch_wallet_meituan"]
    assert len({channel["provider"] for channel in channels if channel["kind"] == "QUICK_PAY"}) == 6


def test_a_red_packet_brings_one_order_to_zero(world: World) -> None:
    answers = read_all(world, CASES["discounted_to_zero"].request)
    packet = next(
        promotion for promotion in (answers["marketing"] or {})["promotions"] if promotion["type"] == "RED_PACKET"
    )
    assert packet["amount_off"] == (answers["order"] or {})["amount"]
    assert packet["threshold"]["value"] == 0


def test_a_user_without_cards_is_unknown_to_the_card_centre(world: World) -> None:
    answers = read_all(world, CASES["without_cards"].request)
    assert [source for source, body in answers.items() if body is None] == ["card", "marketing", "quota"]


@pytest.mark.parametrize("n", GENERATED)
def test_a_generated_user_follows_the_documented_rules(world: World, n: int) -> None:
    request = world.population.generated.consult_request(n)
    answers = {source: body or {} for source, body in read_all(world, request).items()}
    order = answers["order"]
    assert (order["user_id"], order["merchant_id"]) == (f"u_{n}", f"m_{100_000 + n % 8}")
    assert (order["amount"], order["country"]) == (request["amount"], "CN")
    assert len(answers["card"]["cards"]) == 5
    assert [agreement["merchant_id"] for agreement in answers["card"]["agreements"]] == [order["merchant_id"]]
    assert (
        len(answers["balance"]["accounts"]),
        len(answers["marketing"]["promotions"]),
        len(answers["quota"]["quotas"]),
    ) == (2, 5, 6)
    assert not blockages(world, request)


def test_generated_orders_vary(world: World) -> None:
    generated = world.population.generated
    amounts = {generated.order(n)["amount"]["value"] for n in range(FIRST_NUMBER, FIRST_NUMBER + 500)}
    assert len(amounts) > 450


@pytest.mark.parametrize("unknown", ["u_99999", "u_0100000", "u_100000x", "u_404", "m_100000", "u_1234567890123"])
def test_other_ids_do_not_exist(world: World, unknown: str) -> None:
    assert world.population.user(unknown) is None
