"""The service is killed while a page is open: the payer goes on where they were, and pays once."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.pages.payer_browser import PayerBrowser
from tests.payments.checkout import OTP

from .conftest import Start
from .http_application import HttpApplication
from .upstreams import Call, Moment, Upstreams

pytestmark = pytest.mark.processes
ORDER = {"order_id": "o_1001", "user_id": "u_1", "merchant_id": "m_1", "terminal": "APP", "country": "CN"}
CARD = "QUICK_PAY:c_2"


async def test_a_page_goes_on_after_a_restart_at_each_step(
    upstreams: Upstreams, start: Start, secrets: set[str]
) -> None:
    """Open, challenged, and paid: nothing of a page is lost with its service."""
    services = [start(pages=True, workers=2) for _ in range(4)]
    first = HttpApplication((await services[0].ready()).url)
    browser = PayerBrowser(first)
    await browser.open(await first.link(**ORDER))
    secrets.update(browser.cookies.values())

    async def restart() -> None:
        await services.pop(0).kill()
        browser.application = HttpApplication((await services[0].ready()).url)

    await restart()
    await browser.choose(CARD)
    assert browser.document.view == "challenge"
    secrets.update(browser.cookies.values())
    await restart()
    await browser.reload()
    await browser.submit("/challenge", value=OTP)
    assert "good" in browser.document.state
    await restart()
    await browser.open("/cashier/o_1001")
    assert "good" in browser.document.state
    upstreams.assert_paid_once("o_1001")


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("again", ["the form", "the page"])
async def test_a_kill_during_the_submit_is_one_payment_whatever_the_payer_does_next(
    upstreams: Upstreams, start: Start, moment: Moment, again: str
) -> None:
    services = [start(pages=True) for _ in range(2)]
    first, second = [HttpApplication((await service.ready()).url) for service in services]
    browser = PayerBrowser(first)
    await browser.open(await first.link(**ORDER))
    await browser.choose(CARD)
    form = browser.document.form("/challenge")
    held = upstreams.hold(Call.SUBMIT, moment)
    answering = asyncio.create_task(browser.post(form, {"value": OTP}))
    await held.reached()
    await services[0].kill()
    with pytest.raises(aiohttp.ClientError):
        await answering
    held.release()
    browser.application = second
    if again == "the form":
        await browser.post(form, {"value": OTP})
    await browser.open("/cashier/o_1001")
    for _ in range(100):
        if browser.document.view == "result" and "good" in browser.document.state:
            break
        if browser.document.has_form("/challenge"):
            await browser.submit("/challenge", value=OTP)
        await asyncio.sleep(0.2)
        await browser.reload()
    assert "good" in browser.document.state
    upstreams.assert_paid_once("o_1001")
