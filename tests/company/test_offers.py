"""The company's payers get the offers that services of the contract would give them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from cashier import Cashier
from cashier.sandbox import CASES, World
from tests.company.company import Company, Serve, open_company
from tests.company.payer import Payer, timeless

CONSULTED = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")


@pytest.fixture
async def company() -> AsyncIterator[Company]:
    async with open_company(World()) as opened:
        yield opened


@pytest.mark.parametrize("transport", ["http1", "aiohttp"])
async def test_each_offer_is_the_same_as_from_services_of_the_contract(company: Company, transport: str) -> None:
    def over(table: Any) -> None:
        for source in table["sources"].values():
            source["transport"] = transport

    async with Cashier(config=company.configuration(over)) as adapted, company.over_the_contract() as direct:
        for case in CASES:
            status, offer = await Payer(adapted).consult(case)
            expected_status, expected = await Payer(direct).consult(case)
            assert status == expected_status, case
            assert timeless(offer) == timeless(expected), case
            for part in ("blocked", "code"):
                assert offer.get(part) == expected.get(part), case
            assert offer.get("degraded") == expected.get("degraded"), case
        assert adapted.failures == ()


async def test_an_answer_is_not_served_to_another_user_or_merchant_from_the_cache(company: Company) -> None:
    asked_twice = [
        ("chinese_shop", {}),
        ("unbound_and_terminated", {}),  # another user at the same merchant
        ("scan_to_pay", {}),  # the first user at another merchant
        ("guest_order", {"user_id": "u_2"}),
        ("guest_order", {"user_id": "u_1"}),
        ("without_cards", {}),  # a user that three services do not know
        ("chinese_shop", {}),
    ]
    async with Cashier(config=company.configuration()) as adapted, company.over_the_contract() as direct:
        for case, fields in asked_twice * 2:
            _, offer = await Payer(adapted).consult(case, **fields)
            _, expected = await Payer(direct).consult(case, **fields)
            assert timeless(offer) == timeless(expected), (case, fields)
        assert adapted.failures == ()
    asked_for = [request.rpartition("/")[0].rpartition("/")[2] for request in company.requests["card"]]
    assert sorted(set(asked_for)) == ["u_1", "u_2", "u_5"]
    # Cards, their absence and merchants were asked once each; the balances each time.
    assert len(company.requests["card"]) == 2 * 3
    assert len(company.requests["merchant"]) == 2
    assert len(company.requests["balance"]) == 2 * len(asked_twice)


async def test_consultations_of_many_payers_at_once_are_not_mixed_up(company: Company) -> None:
    # Each service is slow for a moment, so that all of them are under way together.
    async def slow(request: web.Request, serve: Serve) -> web.StreamResponse:
        response = await serve(request)
        await asyncio.sleep(0.02)
        return response

    asked: list[tuple[str, dict[str, str]]] = [(case, {}) for case in CASES] + [
        ("guest_order", {"user_id": f"u_{n}"}) for n in range(1, 8)
    ]
    async with Cashier(config=company.configuration()) as adapted, company.over_the_contract() as direct:
        expected = [(await Payer(direct).consult(case, **fields))[1] for case, fields in asked]
        company.faults = dict.fromkeys(CONSULTED, slow)
        offers = await asyncio.gather(*(Payer(adapted).consult(case, **fields) for case, fields in asked * 2))
        assert adapted.failures == ()
    for (_, offer), wanted in zip(offers, expected * 2, strict=True):
        assert (timeless(offer), offer.get("code")) == (timeless(wanted), wanted.get("code"))


async def test_what_did_not_change_is_answered_with_304_and_used_again(company: Company) -> None:
    def uncached(table: dict[str, dict[str, dict[str, object]]]) -> None:
        table["sources"]["channel"]["cache"] = False

    answered: list[int] = []

    async def watch(request: web.Request, serve: Serve) -> web.StreamResponse:
        response = await serve(request)
        answered.append(response.status)
        return response

    company.faults["channel"] = watch
    async with Cashier(config=company.configuration(uncached)) as cashier:
        offers = [timeless((await Payer(cashier).consult(case))[1]) for case in ("chinese_shop", "japanese_shop") * 2]
    assert answered == [200, 200, 304, 304]
    assert offers[:2] == offers[2:]
