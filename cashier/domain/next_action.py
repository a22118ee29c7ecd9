"""The next action of the payer or the caller: `next_action` on the wire, one struct per type.

The engine's action is passed on, its end cut to the payer's time; `status_resolution` adds `Await`
to a payment in progress.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec.structs import replace

from cashier.domain.money import Money
from cashier.domain.order import Instant

# An http or https URL without characters that a browser or a terminal would interpret.
Page = Annotated[str, Meta(pattern=r"^https?://[!-~]{1,2040}(?![\s\S])")]
# A URL with an app's own scheme. Schemes that execute or embed their content are excluded.
AppLink = Annotated[
    str,
    Meta(
        pattern=r"^(?!(?:[jJ][aA][vV][aA]|[vV][bB])[sS][cC][rR][iI][pP][tT]:|[dD][aA][tT][aA]:|[fF][iI][lL][eE]:"
        r"|[bB][lL][oO][bB]:)[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,2040}(?![\s\S])"
    ),
]


class Redirect(Struct, frozen=True, kw_only=True, tag_field="type", tag="REDIRECT", omit_defaults=True):
    """Send the browser to `url`; with POST, `fields` are the form.

    `applink` opens the wallet's app instead.
    """

    method: Literal["GET", "POST"]
    url: Page
    fields: dict[str, str] | None = None
    applink: AppLink | None = None


class DisplayQr(Struct, frozen=True, kw_only=True, tag_field="type", tag="DISPLAY_QR"):
    """`data`: the content of the QR code, not an image."""

    data: str
    expires_at: Instant


class DisplayCode(Struct, frozen=True, kw_only=True, tag_field="type", tag="DISPLAY_CODE", omit_defaults=True):
    code: str
    barcode: str | None = None
    institution: str
    expires_at: Instant
    instructions_url: Page | None = None


class DisplayVa(Struct, frozen=True, kw_only=True, tag_field="type", tag="DISPLAY_VA"):
    bank: str
    account_no: str
    account_name: str
    amount: Money
    expires_at: Instant


class Sdk(Struct, frozen=True, kw_only=True, tag_field="type", tag="SDK"):
    """The opaque input of the provider's own SDK."""

    payload: dict[str, Any]


class Await(Struct, frozen=True, kw_only=True, tag_field="type", tag="AWAIT"):
    """Look again after `poll_after_ms`; stop at `until`."""

    poll_after_ms: Annotated[int, Meta(ge=0, le=86_400_000)]
    until: Instant


Action: TypeAlias = Redirect | DisplayQr | DisplayCode | DisplayVa | Sdk | Await


def expiry(action: Action | None) -> Instant | None:
    """The time after which the action is useless; None if unknown."""
    match action:
        case DisplayQr() | DisplayCode() | DisplayVa():
            return action.expires_at
        case Await():
            return action.until
        case _:
            return None


def ending_by(action: Action, latest: datetime) -> Action:
    """The action with its end no later than `latest`, whatever the engine promises."""
    match action:
        case DisplayQr() | DisplayCode() | DisplayVa() if action.expires_at > latest:
            return replace(action, expires_at=latest)
        case Await() if action.until > latest:
            return replace(action, until=latest)
        case _:
            return action
