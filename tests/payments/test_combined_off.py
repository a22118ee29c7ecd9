"""`[BALANCE] combine = false`: no card completes a balance."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cashier.domain.offer_diff import ChangeType
from cashier.domain.pay_method import Kind, ReasonCode
from cashier.payments.errors import ConsultChanged
from tests.domain.builders import with_terms
from tests.payments.checkout import Checkout, checkout

pytestmark = pytest.mark.virtual_time
ALONE = "BALANCE:acc_1"
COMBINED = f"{ALONE}+QUICK_PAY"


def switch_off(shop: Checkout) -> None:
    config = shop.workers[0].config
    methods = config.catalog.methods
    separate = {**methods, Kind.BALANCE: replace(methods[Kind.BALANCE], combine=False)}
    assert shop.workers[0].reload(replace(config, catalog=replace(config.catalog, methods=separate))) == ()


async def test_a_reload_ends_the_offer_of_combined_payments(shop: Checkout) -> None:
    before = await shop.consult("chinese_shop")
    switch_off(shop)
    after = await shop.consult("chinese_shop")
    assert {method.method_id for method in before.methods} - {method.method_id for method in after.methods} == {
        COMBINED
    }


@pytest.mark.parametrize("option_id", [None, "c_1", "c_2"])
@pytest.mark.parametrize("silent", [None, "card"])
async def test_an_accepted_combined_payment_is_closed_and_no_card_is_called_unbound(
    option_id: str | None, silent: str | None
) -> None:
    async with checkout(every_gating_source=False) as shop:
        request = await shop.new_request("chinese_shop", COMBINED, option_id)
        switch_off(shop)
        if silent is not None:
            shop.silent.add(silent)
        with pytest.raises(ConsultChanged) as changed:
            await shop.submit(request)
        assert [(change.what, change.subject, change.reason) for change in changed.value.changes] == [
            (ChangeType.METHOD_CLOSED, COMBINED, ReasonCode.NOT_OFFERED)
        ]
        assert shop.count("decide") == shop.count("submit") == 0


async def test_an_emptied_balance_does_not_hide_that_combining_is_off(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", COMBINED)
    switch_off(shop)
    user = shop.world.population.user("u_1")
    assert user is not None
    assert user.accounts is not None
    user.accounts[0]["available"] = {"currency": "CNY", "value": 0}
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert [change.what for change in changed.value.changes] == [ChangeType.METHOD_CLOSED]


def test_only_a_balance_can_be_combined() -> None:
    assert with_terms(Kind.BALANCE, combine=False).faults() == []
    [fault] = with_terms(Kind.WALLET, combine=False).faults()
    assert fault.startswith("methods: WALLET.combine = false")
