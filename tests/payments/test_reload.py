"""A reload applies to later operations; a payment under way keeps the policy of its start."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from cashier.core import Cashier
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.routing_rules import RoutingRule
from cashier.payments.errors import CheckUnavailable
from cashier.settings.schema import Configuration
from tests.payments.checkout import Checkout

pytestmark = pytest.mark.virtual_time

CASE, METHOD = "chinese_shop", "WALLET:ALIPAY"
OLD_RULE, NEW_RULE = "cheapest_healthy", "contract"


def changed(config: Configuration) -> Configuration:
    """Budgets, the lifetime of every kind, texts and routing rules differ."""
    methods = {kind: replace(terms, expires_in_s=60) for kind, terms in config.catalog.methods.items()}
    texts = {
        locale: replace(wording, payments=dict.fromkeys(wording.payments, "new"))
        for locale, wording in config.catalog.texts.items()
    }
    accept = replace(config.settings.accept, look_ms=7, decide_ms=8, submit_ms=9)
    return replace(
        config,
        settings=replace(config.settings, accept=accept),
        catalog=replace(config.catalog, methods=methods, texts=texts),
        routing=replace(config.routing, rule=(RoutingRule(NEW_RULE, prefer=("ch_wallet_alipay",)),)),
    )


def recorded_budgets(shop: Checkout, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """Collect the budget of each call to engine, risk and acquirer."""
    budgets: dict[str, set[int]] = {}
    ports = shop.payments._ports

    def record(port: object, name: str) -> None:
        call = getattr(port, name)

        def recording(*arguments: Any) -> Any:
            budgets.setdefault(name, set()).add(arguments[-1])
            return call(*arguments)

        monkeypatch.setattr(type(port), name, staticmethod(recording))

    record(ports.engine, "look_up")
    record(ports.engine, "submit")
    record(ports.risk, "decide")
    record(ports.acquirer, "result")
    return budgets


def reload(cashier: Cashier) -> None:
    assert cashier.reload(changed(cashier.config)) == ()


@pytest.mark.parametrize("step", ["look_up", "decide", "submit"])
async def test_a_payment_under_way_mixes_no_old_and_new_policy(
    shop: Checkout, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = shop.workers[0].config
    request = await shop.new_request(CASE, METHOD)
    budgets = recorded_budgets(shop, monkeypatch)
    held = shop.held[step] = asyncio.Event()
    submitted, started_s = asyncio.create_task(shop.submit(request)), shop.world.clock()
    await asyncio.sleep(0.1)
    assert shop.count(step) == 1
    reload(shop.workers[0])
    held.set()
    payment = await submitted
    accept = old.settings.accept
    assert budgets == {"look_up": {accept.look_ms}, "decide": {accept.decide_ms}, "submit": {accept.submit_ms}}
    assert payment.route is not None
    assert payment.route.rule == OLD_RULE
    assert payment.message.text != "new"
    assert (payment.expires_at - started_s).total_seconds() > 60
    budgets.clear()
    later = await shop.look(payment)
    assert (later.message.text, budgets) == ("new", {"look_up": {7}, "result": {7}})
    assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_the_recheck_of_a_payment_under_way_is_that_of_its_start(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    held = shop.held["look_up"] = asyncio.Event()
    submitted = asyncio.create_task(shop.submit(request))
    await asyncio.sleep(0.1)
    shop.silent.add("card")  # it cannot refuse a wallet
    accept = replace(shop.workers[0].config.settings.accept, every_gating_source=False)
    config = shop.workers[0].config
    shop.workers[0].reload(replace(config, settings=replace(config.settings, accept=accept)))
    held.set()
    with pytest.raises(CheckUnavailable):
        await submitted
    payment = await shop.submit(request, "k2")
    assert payment.status is PaymentStatus.ACTION_REQUIRED
    assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_a_later_payment_has_the_new_policy_alone(shop: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    reload(shop.workers[0])
    budgets = recorded_budgets(shop, monkeypatch)
    payment = await shop.pay(CASE, METHOD)
    assert budgets == {"look_up": {7}, "decide": {8}, "submit": {9}}
    assert payment.route is not None
    assert (payment.route.rule, payment.message.text) == (NEW_RULE, "new")
    assert (payment.expires_at - shop.world.clock()).total_seconds() <= 60
    assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED
