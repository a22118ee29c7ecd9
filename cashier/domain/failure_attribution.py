"""Attribution of payment failures to their channel, by the engine's failure code.

A payer without money says nothing about the channel. The codes are in `routing.toml`;
`channel_health` takes a channel out of service.
"""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.channel_record import ChannelOutcome


class FailureAttribution(Struct, frozen=True, forbid_unknown_fields=True):
    """`[blame]` in `routing.toml`: failure codes by cause.

    The cause is the channel, or others (payer, issuer's decision, ourselves). A code in
    neither list counts as half a failure. Counted whole, one new code for "the payer closed the
    page" would make every channel sick; ignored, a new code for an outage would never make one
    sick.
    """

    channel: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    def outcome(self, code: str) -> ChannelOutcome | None:
        """What a failure with this code says about its channel; None for nothing."""
        if code in self.others:
            return None
        return ChannelOutcome.FAILED if code in self.channel else ChannelOutcome.UNSURE

    def faults(self) -> list[str]:
        return [f"routing: [blame] {code} is in both channel and others" for code in sorted(self.channel & self.others)]
