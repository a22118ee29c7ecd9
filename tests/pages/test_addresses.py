"""Addresses of other services on a page: links of browsers and apps, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from cashier.domain.next_action import Action
from cashier.pages.payment_view import action_step
from cashier.pages.qr import QrCodes
from cashier.pages.views import CodeView, QrView, RedirectView, Step
from cashier.pages.writing import Writing
from tests.payments.checkout import cached_configuration

NOW = datetime(2026, 11, 30, tzinfo=UTC)
HTTPS = "https://wallet.example/pay"
ADDRESSES = [
    (HTTPS, True),
    ("https://wallet.example:8443/pay?x=1&y=2#z", True),
    ("https://[2001:db8::1]/pay", True),
    ("https://wallet.example@evil.example/pay", False),
    ("https://wallet.example:x@evil.example/pay", False),
    ("https://wallet.example:99999/pay", False),
    ("https://[::1;x]/", False),
    ("https:evil.example", False),
    ("https:///evil.example", False),
    ("https://evil.example\\@wallet.example/", False),
    ("https://w\u0430llet.example/", False),
    ("javascript:alert(1)", False),
    ("JaVaScRiPt:alert(1)//", False),
    ("DATA:text/html,x", False),
    ("//evil.example", False),
    ("https://wallet.example/\r\nx: y", False),
    (" https://wallet.example/", False),
]


@pytest.mark.parametrize(("address", "can_be_opened"), [*ADDRESSES, ("alipays://pay?x=1", True), ("app:x", True)])
async def test_an_app_is_opened_by_its_own_scheme_or_at_an_origin(address: str, can_be_opened: bool) -> None:
    step = await shown_step({"type": "REDIRECT", "method": "GET", "url": HTTPS, "applink": address})
    assert (isinstance(step, RedirectView) and step.applink == address) is can_be_opened


@pytest.mark.parametrize(("address", "can_be_opened"), [*ADDRESSES, ("alipays://pay?x=1", False)])
async def test_a_code_and_instructions_are_links_only_to_pages_at_an_origin(address: str, can_be_opened: bool) -> None:
    at = "2026-12-01T00:00:00Z"
    code = {"type": "DISPLAY_CODE", "code": "1", "institution": "x", "expires_at": at, "instructions_url": address}
    step = await shown_step(code)
    assert (isinstance(step, CodeView) and step.instructions == address) is can_be_opened
    step = await shown_step({"type": "DISPLAY_QR", "data": address, "expires_at": at})
    assert (isinstance(step, QrView) and step.link == address) is can_be_opened


async def shown_step(action: dict[str, Any]) -> Step | None:
    """None for an action that no engine's answer may have."""
    try:
        read = msgspec.convert(action, Action)
    except msgspec.ValidationError:
        return None
    return await action_step(read, Writing(cached_configuration().catalog, "en", NOW), QrCodes())
