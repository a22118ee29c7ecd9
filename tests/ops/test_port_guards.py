"""Who may reach the operations port: names, sessions, forms, and the headers of each response."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from starlette.testclient import TestClient

from cashier.ops.host_guard import HostGuard, is_loopback_name
from cashier.ops.sessions import LIFE_S, MOST_FAILURES, Sessions
from tests.ops.fixtures import AUTH, SECRET, Port

EVERYWHERE = "0.0.0.0"
ROUTES = ["/", "/metrics", "/api/overview", "/healthz", "/consultations", "/assets/console.css", "/nothing"]


def token(**claims: Any) -> str:
    defaults = {"iss": "i", "aud": "a", "exp": time.time() + 600, "scope": "operations"}
    return jwt.encode({**defaults, **claims}, SECRET, "HS256")


@pytest.fixture
def guarded() -> Port:
    return Port(host=EVERYWHERE, hosts=["ops.example.com"], auth=AUTH)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:9464",
        "10.0.0.9",
        "",
        "[::1",
        "a b",
        "x@localhost",
    ],
)
def test_a_name_that_may_be_rebound_is_refused_on_every_path(path: str, host: str) -> None:
    response = Port().client().get(path, headers={"host": host})
    assert response.status_code == 421
    assert "cashier_" not in response.text


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:9464", "127.3.2.1", "[::1]:9464"]
)
def test_loopback_names_and_addresses_are_allowed(host: str) -> None:
    assert Port().client().get("/", headers={"host": host}).status_code == 200


def test_configured_names_are_allowed() -> None:
    port = Port(hosts=["Ops.example.com"])
    assert port.client().get("/", headers={"host": "ops.EXAMPLE.com:443"}).status_code == 200
    assert port.client().get("/", headers={"host": "example.com"}).status_code == 421


def test_the_address_that_a_connection_came_to_is_allowed_and_no_other() -> None:
    guard = HostGuard(Port().app, ())
    assert guard.allows(["10.1.2.3"], ("10.1.2.3", 9464))
    assert not guard.allows(["10.1.2.4"], ("10.1.2.3", 9464))
    assert not guard.allows(["pod.local"], ("pod.local", 9464)), "a name could be rebound"
    assert not guard.allows(["localhost", "localhost"], None), "two Host headers"
    assert not is_loopback_name("127.0.0.1.nip.io")


@pytest.mark.parametrize("path", ROUTES)
def test_every_response_has_the_strict_headers(path: str) -> None:
    headers = Port().client().get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] in ("no-store", "no-cache")
    assert path.startswith("/assets") or headers["cache-control"] == "no-store"


OTHER_SITES = [
    {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    for site in ("cross-site", "same-site", "odd")
    for mode, dest in (("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe"), ("no-cors", "script"), ("", ""))
]
OF_EACH_KIND = ["/", "/metrics", "/api/overview", "/api/records", "/api/payments", "/events/overview", "/consultations"]


@pytest.mark.parametrize("headers", OTHER_SITES, ids=lambda headers: " ".join(headers.values()))
def test_a_page_of_another_site_keeps_the_port_busy_with_nothing(headers: dict[str, str]) -> None:
    client = Port().client()
    for path in OF_EACH_KIND:
        response = client.get(path, headers=headers)
        assert (response.status_code, response.text) == (403, "Another site sent this request.\n"), path


def test_a_link_from_another_site_opens_a_page_and_sends_no_form() -> None:
    client = Port(sandbox="http://127.0.0.1:1").client()
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/payments", headers=link).status_code == 200
    assert client.post("/weather/restore", headers=link).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"sec-fetch-site": "none"}, {"sec-fetch-site": "same-origin"}])
def test_programs_the_console_and_a_typed_address_are_served(headers: dict[str, str]) -> None:
    assert Port().client().get("/api/overview", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/sign-in", "/weather/restore"])
@pytest.mark.parametrize(
    "origin", ["http://[", "http://[::1", "https://[x]y", "null", "", "//", "http://ops.example.com:x"]
)
def test_a_form_with_an_origin_that_is_none_is_refused(guarded: Port, path: str, origin: str) -> None:
    port = guarded if path == "/sign-in" else Port(sandbox="http://127.0.0.1:1", hosts=["ops.example.com"])
    response = port.client("http://ops.example.com").post(path, headers={"origin": origin})
    assert response.status_code == 403


def test_a_head_of_an_endless_stream_ends() -> None:
    response = Port().client().head("/events/overview")
    assert (response.status_code, response.text) == (200, "")


def browser(port: Port, base_url: str = "https://ops.example.com") -> TestClient:
    return port.client(base_url, headers={"accept": "text/html", "sec-fetch-site": "same-origin"})


def form_token(client: TestClient, path: str = "/sign-in") -> str:
    return str(client.get(path).text.split('name="form_token" value="')[1].split('"')[0])


def sign_in(client: TestClient, bearer: str, **fields: str) -> Any:
    return client.post("/sign-in", data={"token": bearer, "form_token": form_token(client), **fields})


def test_beyond_loopback_a_browser_is_sent_to_the_sign_in_and_a_program_is_refused(guarded: Port) -> None:
    response = browser(guarded).get("/payments")
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in?next=/payments")
    assert guarded.client("https://ops.example.com").get("/metrics").status_code == 401
    assert guarded.client("https://ops.example.com").get("/api/overview").status_code == 401
    assert browser(guarded).get("/events/overview", headers={"accept": "text/event-stream"}).status_code == 401
    assert guarded.client("https://ops.example.com").get("/healthz").status_code == 200


def test_a_token_is_pasted_once_and_then_a_cookie_serves(guarded: Port) -> None:
    client = browser(guarded)
    response = sign_in(client, f" Bearer {token()}\n", next="/payments")
    assert (response.status_code, response.headers["location"]) == (303, "/payments")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-cashier_operations=")
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert token() not in cookie
    assert client.get("/payments").status_code == 200
    assert "Sign out" in client.get("/").text


def test_by_a_loopback_name_the_cookie_needs_no_tls(guarded: Port) -> None:
    cookie = sign_in(browser(guarded, "http://localhost:9464"), token()).headers["set-cookie"]
    assert cookie.startswith("cashier_operations=")
    assert "Secure" not in cookie
    assert "HttpOnly" in cookie


def test_a_session_ends_with_its_token_and_after_an_hour_at_most() -> None:
    now = [1000.0]
    sessions = Sessions(lambda: now[0])
    short, life_s = sessions.open(1010.0)
    long, longest_s = sessions.open(1e12)
    assert (life_s, longest_s) == (10, LIFE_S)
    now[0] = 1010.0
    assert not sessions.is_open(short)
    assert sessions.is_open(long)
    now[0] = 1000.0 + LIFE_S
    assert not sessions.is_open(long)


def test_a_sign_out_ends_the_session_at_the_server(guarded: Port) -> None:
    client = browser(guarded)
    sign_in(client, token())
    stolen = dict(client.cookies)
    response = client.post("/sign-out", data={"form_token": form_token(client, "/")})
    assert response.headers["location"] == "/sign-in"
    client.cookies.update(stolen)
    assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    ("bearer", "status"),
    [
        ("nonsense", 401),
        ("", 401),
        (token(exp=1), 401),
        (token(scope="consult"), 403),
        (jwt.encode({"iss": "i", "aud": "a", "exp": 9e9, "scope": "operations"}, "x" * 40, "HS256"), 401),
        ("é\u202e", 401),
    ],
)
def test_a_token_that_is_not_an_operators_opens_no_session(guarded: Port, bearer: str, status: int) -> None:
    response = sign_in(browser(guarded), bearer)
    assert response.status_code == status
    assert "set-cookie" not in response.headers


def test_a_token_bound_to_a_merchant_opens_no_session() -> None:
    port = Port(host=EVERYWHERE, hosts=["ops.example.com"], auth={**AUTH, "merchant_claim": "merchant_id"})
    assert sign_in(browser(port), token(merchant_id="m_1")).status_code == 403


def test_sign_ins_that_fail_are_limited(guarded: Port) -> None:
    client = browser(guarded)
    for _ in range(MOST_FAILURES):
        assert sign_in(client, "nonsense").status_code == 401
    assert sign_in(client, token()).status_code == 429


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {}])
def test_another_site_locks_nobody_out(guarded: Port, headers: dict[str, str]) -> None:
    lured = guarded.client("https://ops.example.com")
    for _ in range(MOST_FAILURES + 1):
        assert lured.post("/sign-in", data={"token": "nonsense"}, headers=headers).status_code == 403
    assert sign_in(browser(guarded), token()).status_code == 303


def test_a_session_that_another_chose_is_not_taken_over(guarded: Port) -> None:
    client, other = browser(guarded), browser(guarded)
    for each in (client, other):
        each.cookies.set("__Host-cashier_operations", "chosen")
    response = sign_in(client, token())
    assert response.status_code == 303
    assert "chosen" not in response.headers["set-cookie"]
    assert other.get("/").status_code == 303


def test_the_sign_in_warns_where_a_browser_would_drop_the_cookie(guarded: Port) -> None:
    assert "Not encrypted" in browser(guarded, "http://ops.example.com").get("/sign-in").text
    assert "Not encrypted" not in browser(guarded).get("/sign-in").text


@pytest.mark.parametrize("path", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_a_sign_in_leads_to_no_other_site(guarded: Port, path: str) -> None:
    assert sign_in(browser(guarded), token(), next=path).headers["location"] == "/"
    assert "evil" not in browser(guarded).get("/sign-in", params={"next": path}).text


def test_on_loopback_there_is_no_sign_in() -> None:
    assert Port().client().get("/sign-in").status_code == 404
    assert "Sign out" not in Port().client().get("/").text


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8080"},
        {},
    ],
)
@pytest.mark.parametrize("path", ["/weather", "/weather/restore"])
def test_a_form_of_another_site_changes_nothing(path: str, headers: dict[str, str]) -> None:
    client = Port(sandbox="http://127.0.0.1:1").client()
    fields = {
        "form_token": Sessions().form_token(None),
        "source": "quota",
        "fault": "hang",
        "share_bps": "10000",
        "ms": "1",
    }
    response = client.post(path, data=fields, headers=headers)
    assert response.status_code == 403


@pytest.mark.parametrize("forged", ["", "0" * 64, "é"])
def test_a_form_without_its_token_changes_nothing(forged: str) -> None:
    client = Port(sandbox="http://127.0.0.1:1").client(headers={"sec-fetch-site": "same-origin"})
    assert client.post("/weather/restore", data={"form_token": forged}).status_code == 403


def test_a_form_that_is_too_large_or_no_form_is_refused() -> None:
    client = Port(sandbox="http://127.0.0.1:1").client(headers={"sec-fetch-site": "same-origin"})
    assert client.post("/weather", data={"form_token": "x" * 20_000}).status_code == 413
    assert client.post("/weather", json={}).status_code == 415


def test_a_token_of_one_session_serves_no_other() -> None:
    sessions = Sessions()
    one, other = sessions.open(1e12)[0], sessions.open(1e12)[0]
    assert sessions.is_form_token(sessions.form_token(one), one)
    assert not sessions.is_form_token(sessions.form_token(one), other)
    assert not sessions.is_form_token(sessions.form_token(one), None)


@pytest.mark.parametrize("path", ["/weather", "/weather/restore"])
def test_a_get_changes_nothing(path: str) -> None:
    response = Port(sandbox="http://127.0.0.1:1").client().get(path, params={"source": "quota", "fault": "hang"})
    assert response.status_code == (200 if path == "/weather" else 405)


def test_sessions_are_bounded() -> None:
    sessions = Sessions()
    cookies = [sessions.open(1e12)[0] for _ in range(300)]
    assert sum(map(sessions.is_open, cookies)) == 200
