"""Headers, cookies, returns and hostile texts."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request as StarletteRequest
from structlog.testing import capture_logs

from cashier.domain.page_session import SessionRequest
from cashier.domain.payment_message import MessageCode
from cashier.domain.text_form import Form
from cashier.domain.wording import text_of
from cashier.pages.embed_call import HeaderTokens
from cashier.pages.forms import PageForm
from cashier.pages.page_call import PageCall
from cashier.web.problem import RequestRefused
from cashier.wire.transport import Request, Response
from tests.pages.page_shop import BACK, SHOP, PageShop, page_shop
from tests.pages.payer_browser import PageAnswer, PayerBrowser, query_of
from tests.payments.checkout import OTP, Checkout

pytestmark = pytest.mark.virtual_time
CASE, ORDER = "chinese_shop", "/cashier/o_1001"
CARD, WALLET = "QUICK_PAY:c_2", "WALLET:ALIPAY"
PUBLIC = {"public_url": "https://pay.example/checkout", "trusted_proxies": ["10.0.0.0/8"]}


def policy(answer: PageAnswer) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in parts}


def change_action(shop: Checkout, **fields: Any) -> None:
    """The engine's answer to a submit, with another action."""

    async def reply(request: Request) -> Response:
        response = await shop._sandbox(request)
        body = json.loads(response.body)
        if body.get("next_action"):
            body["next_action"] = {**body["next_action"], **fields}
        return Response(response.status, json.dumps(body).encode())

    shop.replies |= {"submit": reply, "look_up": reply}


# Headers


async def test_every_response_has_the_headers_of_a_page(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(CARD)
    await browser.submit("/challenge", value="000000")
    await browser.submit("/challenge", value=OTP)
    stranger = shop.browser()
    for path in (ORDER, f"{ORDER}/payment", "/cashier/../x", f"{ORDER}/return", f"{ORDER}?token=x"):
        browser.answers.append(await stranger.send("GET", path))
    browser.answers.append(await stranger.send("POST", f"{ORDER}/pay", []))
    assert {answer.status for answer in browser.answers} == {200, 303, 403, 404}
    for answer in browser.answers:
        assert policy(answer) == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data:",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
            "form-action": "'self'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"


async def test_no_page_has_anything_inline_and_refreshes_only_without_script(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    pages = [browser.document]
    await browser.choose(WALLET)
    pages.append(browser.document)
    for document in pages:
        for tag, attributes in document.tags:
            assert tag != "style"
            assert tag != "script" or "src" in attributes
            assert not {name for name in attributes if name == "style" or name.startswith("on")}
        html = document.html
        assert "http-equiv" not in html.replace("<noscript><meta http-equiv", "")


async def test_a_page_loads_a_style_a_script_and_no_more(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    links = [attributes for tag, attributes in browser.document.tags if tag == "link"]
    urls = [each["href"] for each in links if each["rel"] != "expect"]
    urls += [attributes["src"] for tag, attributes in browser.document.tags if tag == "script"]
    assert len(urls) <= 3, "style, script and favicon"
    for url in urls:
        plain = await browser.send("GET", url)
        packed = await browser.send("GET", url, headers={"accept-encoding": "gzip"})
        assert plain.status == packed.status == 200
        assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert len(packed.body) <= len(plain.body)
    assert (await browser.send("GET", "/cashier-assets/0123456789ab.page.css")).status == 404


async def test_a_banks_form_gets_its_origin_on_its_page_alone(shop: PageShop) -> None:
    change_action(
        shop.checkout, method="POST", url="https://pay.bank.example:8443/enter", fields={"order": "<1>", "sum": '"'}
    )
    browser = await shop.payer(CASE)
    answer = await browser.choose(WALLET)
    assert policy(answer)["form-action"] == "'self' https://pay.bank.example:8443"
    form = browser.document.form("/enter")
    assert (form.method, form.fields) == ("POST", [("order", "<1>"), ("sum", '"')])
    assert policy(await browser.open(f"{ORDER}?locale=ja"))["form-action"] != "'self'", "still that page"
    shop.settle(browser)
    assert policy(await browser.submit("/payment"))["form-action"] == "'self'"


async def test_a_banks_page_is_a_link(shop: PageShop) -> None:
    change_action(shop.checkout, url="https://pay.bank.example/p?x=1&y=2")
    browser = await shop.payer(CASE)
    answer = await browser.choose(WALLET)
    assert "https://pay.bank.example/p?x=1&y=2" in browser.document.links
    assert policy(answer)["form-action"] == "'self'"


@pytest.mark.parametrize(
    "url",
    [
        "https://bank.example;script-src/*",
        "https://bank.example,*/p",
        "https://bank.example'unsafe-inline'/p",
        "https://user@bank.example/p",
        "https://[::1;x]/p",
        "https:///p",
        "https://bank.example:99999/p",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_address_of_a_bank_changes_the_policy(shop: PageShop, url: str, method: str) -> None:
    change_action(shop.checkout, method=method, url=url, fields={})
    browser = await shop.payer(CASE)
    answer = await browser.choose(WALLET)
    assert answer.status == 200
    assert policy(answer)["form-action"] == "'self'"
    assert policy(answer)["script-src"] == "'self'"
    assert url not in browser.document.links


# Cookies


async def test_cookies_are_of_the_order_and_not_for_scripts(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    texts = [text for answer in browser.answers for text in answer.set_cookies]
    assert {text.partition("=")[0] for text in texts} == {"cashier-session", "cashier-payment"}
    for text in texts:
        attributes = {part.strip().lower() for part in text.split(";")[1:]}
        assert attributes == {f"path={ORDER}", "httponly", "samesite=lax"}


async def test_behind_a_gateway_cookies_are_secure_and_addresses_are_public() -> None:
    async with page_shop(PUBLIC) as shop:
        link = shop.link(CASE)
        assert link.startswith("https://pay.example/checkout/cashier/o_1001?token=")
        browser = shop.browser(headers={"host": "evil.example"})
        answer = await browser.send("GET", f"/cashier/o_1001?token={query_of(link)['token']}")
        assert answer.location == "/checkout/cashier/o_1001"
        (cookie,) = answer.set_cookies
        assert cookie.startswith("__Secure-cashier-session=")
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert attributes == {"path=/checkout/cashier/o_1001", "secure", "httponly", "samesite=lax"}
        browser.cookies = {(ORDER, name): value for (_, name), value in browser.cookies.items()}
        page = (await browser.send("GET", ORDER)).document
        form = page.form("/pay")
        assert form.action == "/checkout/cashier/o_1001/pay"
        await browser.send("POST", f"{ORDER}/pay", [*form.fields[:3], ("method", WALLET)])
        (sent,) = shop.checkout.submissions
        assert sent["return_url"].startswith("https://pay.example/checkout/cashier/o_1001/return?state=")


async def test_without_a_public_address_a_foreign_name_gets_no_link(shop: PageShop) -> None:
    wanted = SessionRequest(order_id="o_1001", user_id="u_1", merchant_id="m_1", terminal="H5")  # type: ignore[arg-type]
    for host in (b"evil.example", b"127.0.0.1.evil.example", b"evil@127.0.0.1", b"", b"127.0.0.1/x"):
        scope = {"type": "http", "scheme": "http", "root_path": "", "headers": [(b"host", host)]}
        with pytest.raises(RequestRefused):
            shop.pages.open_session(wanted, scope)


async def test_a_value_that_is_too_long_for_a_cookie_takes_several(shop: PageShop) -> None:
    browser = await shop.payer(CASE, return_url=f"{SHOP}/{'x' * 2000}")
    assert (ORDER, "cashier-session-1") in browser.cookies
    await browser.choose(WALLET)
    assert browser.document.view == "action"
    shop.settle(browser)
    await browser.reload()
    assert "good" in browser.document.state
    del browser.cookies[(ORDER, "cashier-session-1")]
    await browser.reload()
    assert browser.answers[-1].status == 403


@pytest.mark.parametrize("letter", ["x", "\u4e66", "\U0001f4da", "\x00", "\u202e", '"'])
async def test_a_title_of_any_length_and_alphabet_leaves_room_for_the_session(shop: PageShop, letter: str) -> None:
    """With the longest address of a shop, and what else a session may hold."""
    population: Any = shop.checkout.world.population
    population._orders["o_1001"]["title"] = letter * 30_000
    browser = await shop.payer(CASE, return_url=f"{SHOP}/{'x' * 2000}")
    form = browser.document.form("/pay")
    title = next(name for name, _ in form.fields if name.startswith("title-"))
    form.fields = [(name, letter * 500 if name.startswith(title[:6]) else value) for name, value in form.fields]
    await browser.choose(WALLET)
    assert browser.document.view == "action"
    for _ in range(2):
        assert (await browser.reload()).status == 200
    assert sum(len(name) + len(value) for (_, name), value in browser.cookies.items()) < 12_000
    assert len(browser.answers[-1].body) < 60_000


async def test_a_cookie_that_another_subdomain_sets_hides_none_of_ours(shop: PageShop) -> None:
    """Before ours or after it, for each name and each part."""
    browser = await shop.payer(CASE, return_url=f"{SHOP}/{'x' * 2000}")
    await browser.choose(WALLET)
    own = "; ".join(f"{name}={value}" for (_, name), value in browser.cookies.items())
    for junk in ("", "x", "1~", "1~x.y.z", "2~x", "99~x", "~", "1~pay_x:y", "\x80"):
        tossed = "; ".join(f"{name}={junk}" for _, name in browser.cookies)
        for sent in (f"{tossed}; {own}", f"{own}; {tossed}", f"{tossed}; {tossed}; {own}"):
            answer = await shop.browser().send("GET", f"{ORDER}/payment", headers={"cookie": sent})
            assert (answer.status, answer.document.view) == (200, "action")
        alone = await shop.browser().send("GET", f"{ORDER}/payment", headers={"cookie": tossed})
        assert alone.status == 403


@pytest.mark.parametrize("order_id", ["a:b@c~d-e_f", "A" * 64, "o_1001.x", "payment"])
async def test_an_order_of_any_id_has_cookies_of_its_own(shop: PageShop, order_id: str) -> None:
    """From the link to the result, with a browser that also has another order open."""
    population: Any = shop.checkout.world.population
    population._orders[order_id] = {**population._orders["o_1001"], "order_id": order_id}
    browser = await shop.payer(CASE)
    before = dict(browser.cookies)
    await browser.open(shop.link(CASE, order_id=order_id))
    assert browser.address == f"/cashier/{order_id}"
    await browser.choose(WALLET)
    assert browser.document.view == "action"
    assert {path for path, _ in browser.cookies} == {ORDER, f"/cashier/{order_id}"}
    (sent,) = shop.checkout.submissions
    assert sent["order_id"] == order_id
    await browser.open(sent["return_url"].partition("8080")[2])
    assert browser.document.view == "action"
    assert {key: value for key, value in browser.cookies.items() if key[0] == ORDER} == before


async def test_a_flood_of_cookies_costs_a_bounded_number_of_attempts(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    value = next(iter(browser.cookies.values()))
    flood = "; ".join([f"cashier-session=14~{value[2:-1]}"] * 4 + [f"cashier-session-{n}=x" for n in range(14)] * 9)
    answer = await asyncio.wait_for(shop.browser().send("GET", ORDER, headers={"cookie": flood}), 5)
    assert answer.status == 403


# Where payers come from and go to


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/back",
        "http://shop.example/back",
        "https://shop.example.evil.example/",
        "https://shop.example@evil.example/",
        "https://shop.example:8443/back",
        "https://shop.example\\@evil.example/",
    ],
)
async def test_a_payer_is_sent_back_to_the_merchant_only(shop: PageShop, url: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        shop.link(CASE, return_url=url)
    assert [error.field for error in refused.value.problem.errors] == ["return_url"]


@pytest.mark.parametrize("url", [BACK, "https://SHOP.example/back", "https://shop.example:443/back?x=1#y"])
async def test_an_origin_is_compared_as_browsers_do(shop: PageShop, url: str) -> None:
    assert shop.link(CASE, return_url=url)


async def test_risk_sees_the_payers_address_and_browser() -> None:
    async with page_shop({"trusted_proxies": ["10.0.0.0/8"]}) as shop:
        headers = {"x-forwarded-for": "198.51.100.1, 203.0.113.9"}
        browser = PayerBrowser(shop.application, headers=headers, client="10.1.1.1")
        await browser.open(shop.link(CASE))
        await browser.choose(WALLET)
        asked = next(body for name, body in shop.checkout.bodies if name == "decide")
        assert asked["device"] == {"ip": "203.0.113.9", "user_agent": "Test browser"}


async def returned(shop: PageShop) -> tuple[PayerBrowser, str]:
    """A browser whose payment is at the bank, and where the bank sends it."""
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    (sent,) = shop.checkout.submissions
    return browser, sent["return_url"].partition("8080")[2]


async def test_a_return_by_get_goes_on_to_the_payment(shop: PageShop) -> None:
    browser, url = await returned(shop)
    shop.settle(browser)
    await browser.open(url)
    assert browser.address.startswith(f"{ORDER}/payment")
    assert "good" in browser.document.state


async def test_a_return_by_post_of_the_bank_does_too(shop: PageShop) -> None:
    browser, url = await returned(shop)
    shop.settle(browser)
    answer = await browser.send("POST", url, [("result", "ok")], cross_site=True)
    assert (answer.status, answer.location) == (303, url)
    await browser.open(answer.location)
    assert "good" in browser.document.state


async def test_a_return_in_another_browser_shows_the_result_and_nothing_else(shop: PageShop) -> None:
    browser, url = await returned(shop)
    other = shop.browser()
    await other.open(url)
    assert other.document.view == "result"
    assert other.document.forms == []
    assert 'class="order"' not in other.document.html
    assert "http-equiv" in other.document.html, "without script it looks again"
    shop.settle(browser)
    await other.open(url)
    assert "good" in other.document.state
    assert other.cookies == {}
    assert BACK not in other.document.links


@pytest.mark.parametrize("end", ["declined", "replaced", "paid by another"])
async def test_a_return_shows_the_end_of_its_own_payment_in_another_browser(shop: PageShop, end: str) -> None:
    browser, url = await returned(shop)
    if end == "declined":
        shop.settle(browser, "FAILED")
    else:
        await browser.submit("/replace")
    if end == "paid by another":
        await browser.choose("WALLET:WECHAT_PAY")
        shop.settle(browser)
    other = shop.browser()
    await other.open(url)
    assert other.document.view == "result"
    assert ("bad" if end == "declined" else "calm") in other.document.state
    assert other.document.forms == []
    assert "payment_token" not in other.document.html


async def test_a_return_before_anything_is_known_says_that_and_looks_again(shop: PageShop) -> None:
    _, url = await returned(shop)
    shop.checkout.replies["result"] = shop.checkout.replies["look_up"] = _unreadable
    other = shop.browser()
    await other.open(url)
    assert (other.answers[-1].status, other.document.view) == (503, "problem")
    assert "http-equiv" in other.document.html


async def _unreadable(request: Request) -> Response:
    return Response(500, b"")


@pytest.mark.parametrize("change", [lambda state: state[:-4] + "AAAA", lambda state: "", lambda state: state[::-1]])
async def test_a_forged_return_shows_nothing(shop: PageShop, change: Callable[[str], str]) -> None:
    _, url = await returned(shop)
    path, _, state = url.partition("?state=")
    stranger = shop.browser()
    for method in ("GET", "POST"):
        answer = await stranger.send(method, f"{path}?state={change(state)}")
        assert answer.status == 403


async def test_a_return_of_another_order_shows_nothing(shop: PageShop) -> None:
    _, url = await returned(shop)
    answer = await shop.browser().send("GET", url.replace("o_1001", "o_1002"))
    assert answer.status == 403


async def test_a_return_address_shows_no_id_and_no_name(shop: PageShop) -> None:
    from cashier.tokens.jws import b64url_decode

    browser, url = await returned(shop)
    header, payload = (json.loads(b64url_decode(part)) for part in query_of(url)["state"].split(".")[:2])
    sealed = b64url_decode(payload.pop("sealed"))
    assert "u_1" not in {**header, **payload}.values()
    assert shop.payment_id(browser) not in {**header, **payload}.values()
    assert shop.payment_id(browser).encode() not in sealed


# Hostile texts

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


async def test_nothing_from_upstreams_is_markup(shop: PageShop) -> None:
    population: Any = shop.checkout.world.population
    population._orders["o_1001"]["title"] = HOSTILE
    for user in population.named_users:
        for promotion in user.promotions or ():
            promotion["title"] = HOSTILE
        for card in user.cards or ():
            card["bank_name"] = HOSTILE
    browser = await shop.payer(CASE)
    assert HOSTILE in browser.document.text
    for document in [browser.document]:
        assert "<script>alert" not in document.html
        assert "<img src=x" not in document.html
        assert "49" not in document.text.replace(HOSTILE, "").partition("\"'&")[2][:10]


@pytest.mark.parametrize(
    ("case", "method_id", "option_id", "fields"),
    [
        ("indonesian_shop", "VA", "BCA", {"bank": HOSTILE, "account_no": HOSTILE, "account_name": HOSTILE}),
        ("japanese_shop", "OTC", "LAWSON", {"code": HOSTILE, "institution": HOSTILE, "barcode": HOSTILE}),
        (CASE, WALLET, None, {"method": "POST", "fields": {HOSTILE: HOSTILE}}),
    ],
)
async def test_no_action_of_an_engine_is_markup(
    shop: PageShop, case: str, method_id: str, option_id: str | None, fields: dict[str, Any]
) -> None:
    change_action(shop.checkout, **fields)
    browser = await shop.payer(case)
    await browser.choose(method_id, option_id)
    assert browser.document.view == "action"
    assert "<script>alert" not in browser.document.html
    assert "<img" not in browser.document.html


async def test_no_address_reflects_what_it_was_called_with(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    for query in ("locale=<script>", "coupon=<script>x", "attempt=<script>", "notice=<script>", "wait=<script>"):
        for path in (ORDER, f"{ORDER}/payment"):
            await browser.open(f"{path}?{query}")
            assert "<script>" not in browser.document.html


@pytest.mark.parametrize("attempt", ["../orders/o_1002", "pay_x", "pay_" + "a" * 27, "%2e%2e"])
async def test_no_address_names_a_payment_that_cannot_be(shop: PageShop, attempt: str) -> None:
    browser = await shop.payer(CASE)
    await browser.open(f"{ORDER}/payment?attempt={attempt}")
    assert browser.address == ORDER
    assert shop.checkout.count("look_up") == 0


async def test_a_choice_of_coupons_beyond_all_bounds_is_refused(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.open(f"{ORDER}?{'&'.join(f'coupon=p_{number}' for number in range(50))}")
    assert (browser.answers[-1].status, browser.document.view) == (422, "problem")


async def test_no_secret_is_logged(shop: PageShop) -> None:
    with capture_logs() as lines:
        browser = await shop.payer(CASE)
        await browser.choose(CARD)
        await browser.submit("/challenge", value=OTP)
        await browser.open(f"{ORDER}/return?state=x")
    written = json.dumps(lines, default=str)
    secrets = [*browser.cookies.values(), OTP, query_of(shop.link(CASE))["token"]]
    assert not any(secret in written for secret in secrets)
    assert "form_token" not in written


async def test_what_was_typed_and_who_asks_stay_out_of_a_repr(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    scope = {"type": "http", "scheme": "http", "path": ORDER, "query_string": b"token=secret", "headers": []}
    cookies = "; ".join(f"{name}={value}" for (_, name), value in browser.cookies.items())
    scope["headers"] = [(b"cookie", cookies.encode()), (b"authorization", b"Bearer secret")]
    request = StarletteRequest({**scope, "path_params": {"order_id": "o_1001"}})
    call = PageCall(shop.cashier, request, shop.checkout.world.clock())
    form = PageForm("", [("value", OTP), ("form_token", "secret"), ("secret", "x")])
    for each in (call, call.cookies, call.session, form, shop.pages, HeaderTokens({b"authorization": b"secret"})):
        assert not any(secret in repr(each) for secret in ("secret", OTP, *browser.cookies.values()))


# Languages


async def test_a_language_is_chosen_and_kept(shop: PageShop) -> None:
    browser = await shop.payer(CASE, locale=None)
    await browser.open(f"{ORDER}?locale=ar")
    assert browser.address == ORDER
    assert 'lang="ar" dir="rtl"' in browser.document.html
    await browser.choose(WALLET)
    assert 'lang="ar" dir="rtl"' in browser.document.html


async def test_a_payment_speaks_the_language_that_is_chosen_meanwhile(shop: PageShop) -> None:
    texts = shop.cashier.catalog.texts
    browser = await shop.payer(CASE, locale="zh-CN")
    await browser.choose(CARD)
    for locale in ("ja", "ar", "en", "zh-CN"):
        await browser.open(f"{ORDER}/payment?locale={locale}")
        assert text_of(texts[locale].payments[MessageCode.CHALLENGE], Form.SMS_OTP) in browser.document.text
    await browser.open(f"{ORDER}/payment?locale=ja")
    await browser.submit("/challenge", value=OTP)
    assert text_of(texts["ja"].payments[MessageCode.SUCCEEDED]) in browser.document.text


async def test_without_a_choice_the_browser_names_the_language(shop: PageShop) -> None:
    browser = shop.browser(headers={"accept-language": "xx, ja;q=0.9, en;q=0.5"})
    await browser.open(shop.link(CASE, locale=None))
    assert 'lang="ja"' in browser.document.html


async def test_concurrent_requests_of_one_session_do_not_disturb_each_other(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    await browser.choose(WALLET)
    answers = await asyncio.gather(*(browser.send("GET", f"{ORDER}/payment") for _ in range(5)))
    assert {answer.status for answer in answers} == {200}


# Compression


async def test_a_document_is_compressed_and_its_secrets_are_never_the_same(shop: PageShop) -> None:
    browser = await shop.payer(CASE)
    plain = browser.answers[-1]
    packed = await browser.send("GET", ORDER, headers={"accept-encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert int(packed.headers["content-length"]) == len(packed.body) < len(plain.body) / 3
    assert b"</html>" in gzip.decompress(packed.body)
    tokens = {dict((await browser.send("GET", ORDER)).document.form("/pay").fields)["form_token"] for _ in range(5)}
    assert len(tokens) == 5


@pytest.mark.parametrize("accepted", ["", "br", "gzip;q=0", "gzip; q=0.0, br", "GZIP;Q=0.000", "br, gzipped", "*;q=0"])
async def test_a_browser_that_takes_no_gzip_gets_none(shop: PageShop, accepted: str) -> None:
    """Neither a page, nor what it loads."""
    browser = await shop.payer(CASE)
    loaded = re.findall(r'"(/cashier-assets/[^"]+)"', browser.document.html)
    assert loaded
    for address in (ORDER, "/cashier.js", *loaded):
        answer = await browser.send("GET", address, headers={"accept-encoding": accepted})
        assert "content-encoding" not in answer.headers
        assert answer.body.decode()


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "GZIP ; q=1.0", "gzip;q=0.001", "deflate,gzip,br;q=0"])
async def test_a_browser_that_takes_gzip_gets_it(shop: PageShop, accepted: str) -> None:
    browser = await shop.payer(CASE)
    for address in (ORDER, "/cashier.js", *re.findall(r'"(/cashier-assets/[^"]+)"', browser.document.html)):
        answer = await browser.send("GET", address, headers={"accept-encoding": accepted})
        assert answer.headers["content-encoding"] == "gzip"
