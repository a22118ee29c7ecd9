"""Blame: whose fault a failed payment was. A payer without money says nothing of the channel that found it out. The codes are in
`routing.toml`; which channel is then taken less is in `track_record`."""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.channel_health import ChannelOutcome


class FailureAttribution(Struct, frozen=True, forbid_unknown_fields=True):
    """`[blame]`. The engine's failure codes: the `channel`'s fault, or that of others (the payer, his bank's verdict on him, ourselves).

    A code that is in neither list counts half. As a whole failure, one new code for "the payer closed the page" would make every channel
    sick; as none, a new code for an outage would never make one sick.
    """

    channel: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    def outcome(self, code: str) -> ChannelOutcome | None:
        """What a failure with this code says of its channel; None for nothing."""
        if code in self.others:
            return None
        return ChannelOutcome.FAILED if code in self.channel else ChannelOutcome.UNSURE

    def faults(self) -> list[str]:
        return [
            f"routing: [blame] {code} is both the channel's fault and others'"
            for code in sorted(self.channel & self.others)
        ]
