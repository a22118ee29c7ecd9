"""What the payer has to do next, or the caller: the wire's `next_action`, one struct a sort. Told by the engine, handed on as it came."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from cashier.domain.money import Money
from cashier.domain.order import Instant

# A page of the web, and nothing that a browser or a terminal would take for a command.
Page = Annotated[str, Meta(pattern=r"^https?://[!-~]{1,2040}(?![\s\S])")]
# What opens an app: a scheme of its own, none that runs what follows.
AppLink = Annotated[
    str,
    Meta(
        pattern=r"^(?!(?:[jJ][aA][vV][aA]|[vV][bB])[sS][cC][rR][iI][pP][tT]:|[dD][aA][tT][aA]:|[fF][iI][lL][eE]:|[bB][lL][oO][bB]:)[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,2040}(?![\s\S])"
    ),
]


class Redirect(Struct, frozen=True, kw_only=True, tag_field="type", tag="REDIRECT", omit_defaults=True):
    """Send the browser to `url`; with POST, `fields` are the form. `applink` opens the wallet's app instead, where there is one."""

    method: Literal["GET", "POST"]
    url: Page
    fields: dict[str, str] | None = None
    applink: AppLink | None = None


class DisplayQr(Struct, frozen=True, kw_only=True, tag_field="type", tag="DISPLAY_QR"):
    """`data` is what the code says, not its picture."""

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
    """What the provider's own SDK takes; it means nothing to us."""

    payload: dict[str, Any]


class Await(Struct, frozen=True, kw_only=True, tag_field="type", tag="AWAIT"):
    """Nothing to do but to look again after `poll_after_ms`, and to stop by `until`."""

    poll_after_ms: Annotated[int, Meta(ge=0, le=86_400_000)]
    until: Instant


Action: TypeAlias = Redirect | DisplayQr | DisplayCode | DisplayVa | Sdk | Await


def expiry(action: Action | None) -> Instant | None:
    """When there is nothing left to be done by it; None where it does not say."""
    match action:
        case DisplayQr() | DisplayCode() | DisplayVa():
            return action.expires_at
        case Await():
            return action.until
        case _:
            return None
