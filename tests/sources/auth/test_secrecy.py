"""No secret of any method stands in anything that operators see, whatever the services do.

The services refuse every credential, and repeat all that they were sent: in pages, fields and
codes.
"""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from cashier.consultation.answer import ConsultError
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.domain.explanation.evidence import WhyRequest
from cashier.payments.errors import AcceptError
from cashier.probe import probe
from cashier.settings.schema import SERVICES
from cashier.telemetry.shown_settings import shown_settings
from tests.support.scripted_service import served
from tests.telemetry.rig import CASE, rig
from tests.telemetry.test_operator_privacy import CALM, Seen, log, spoiled

from .conftest import KeyPair

__all__ = ["log"]  # a fixture

BEARER, CLIENT, ISSUED, HMAC = "b3arer-7f6e5d4c3b2a", "cl1ent-0a1b2c3d4e5f", "issu3d-9z8y7x6w5v", "hm4c-" * 8


def secrets_of(pair: KeyPair) -> set[str]:
    lines = pair.private_pem.decode().splitlines()
    return {BEARER, CLIENT, ISSUED, HMAC, *lines[1:-1]}


def repeating(request: web.Request, _right: web.StreamResponse) -> web.StreamResponse:
    """A refusal with all headers of the request in its body, its status line and a header."""
    headers = {name: value for name, value in request.headers.items() if name != "Host"}
    told = " ".join(headers.values())
    body = json.dumps({"code": told, "error": told, **headers}).encode()
    return web.Response(status=401, reason=told[:200], body=body, headers={"X-Told": told[:4000]})


async def token_endpoint(request: web.Request) -> web.Response:
    form = await request.post()
    assert CLIENT in str(form)
    return web.json_response({"access_token": ISSUED, "expires_in": 3600, "debug": str(form)})


async def test_no_output_has_a_secret(log: io.StringIO, pair: KeyPair, platform: KeyPair, tmp_path: Path) -> None:
    token, secret, hmac = tmp_path / "token", tmp_path / "secret", tmp_path / "hmac"
    for file, content in ((token, BEARER), (secret, CLIENT), (hmac, HMAC)):
        file.write_text(content)
    wechat = {
        "mchid": "1900000000",
        "serial_no": "S1",
        "private_key_file": pair.private_file,
        "platform_keys": {"P1": platform.public_file},
    }
    application = web.Application()
    application.router.add_post("/token", token_endpoint)
    async with served(application) as endpoint:
        oauth2 = {
            "token_url": f"{endpoint}/token",
            "client_id": "cashier",
            "client_secret_file": str(secret),
            "client_auth": "post",
        }
        methods: list[dict[str, Any]] = [
            {"bearer": {"token_file": str(token)}},
            {"oauth2": oauth2},
            {"hmac": {"key_id": "k1", "secret_file": str(hmac)}},
            {"wechat_pay": wechat},
        ]
        names = (*SOURCE_NAMES, *SERVICES)
        sources = {name: {"auth": methods[index % len(methods)]} for index, name in enumerate(names)}
        for name in SOURCE_NAMES:
            sources[name] |= CALM
        async with rig(sources=sources, records_per_second=1000, lines_per_second=1000) as shop:
            found: list[tuple[str, str]] = []
            sent: list[str] = []
            for name in names:
                shop.spoil = spoiled(name, repeating)
                with suppress(ConsultError, AcceptError):
                    await shop.consult(CASE)
                sent += [str(request.headers) for request in shop.requests]
            explanation = await shop.cashier.why(WhyRequest(order_id="o_1001", user_id="u_1", merchant_id="m_1"))
            found.append(("why", repr(explanation)))
            found.append(("failures", repr(shop.cashier.failures)))
            found.append(("reachability", repr(shop.cashier.reachability())))
            found.append(("parts", repr(shop.cashier._parts)))
            found.append(("configuration", repr(shop.cashier.config)))
            found.append(("settings", repr(shown_settings(shop.cashier.config.settings))))
            found.append(("probe", repr(await probe(shop.cashier.config, {"order_id": "o_1001"}))))
            seen = Seen(shop, log)
            found += list(seen.texts())
            await shop.close()
            found += [("trace", body.decode("utf-8", "replace")) for body in shop.collector.bodies]
            found.append(("log", log.getvalue()))
    # The services got them, and refused.
    assert any(BEARER in text for text in sent)
    assert any(ISSUED in text for text in sent)
    assert "UNAUTHORIZED" in log.getvalue()
    leaks = {(place, word) for place, text in found for word in secrets_of(pair) if word in text}
    assert leaks == set()
