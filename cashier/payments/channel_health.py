"""Channel health of one worker: the state and clock of the routing rules in `domain`.

Each worker learns from the payments that it saw end. Nothing is shared, so routing a payment needs
no remote call. The rules belong to the call, and a change of rules keeps everything learned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence, Set

from cashier.domain.channel_record import ChannelOutcome, ChannelRecord, with_outcome, with_probe, with_skip
from cashier.domain.facts import Channel
from cashier.domain.routing import RoutingDecision, route
from cashier.domain.routing_rules import RoutedPayment, Routing

# Far more than any gateway has. The channel without news for longest is dropped and starts cold
# again.
MAX_CHANNELS = 10_000
# Every query of an ended payment reports its outcome again; within this many payments it counts
# once.
MAX_COUNTED = 50_000


class ChannelHealth:
    """`records` by channel id. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.records: OrderedDict[str, ChannelRecord] = OrderedDict()
        self._counted: OrderedDict[tuple[str, str], None] = OrderedDict()

    def route(
        self,
        routing: Routing,
        payment: RoutedPayment,
        channels: Sequence[Channel],
        payment_id: str,
        now_s: float,
        tried: Set[str] = frozenset(),
    ) -> RoutingDecision:
        """Route one payment, see `routing.route`.

        Call once per payment: it counts probes of sick channels.
        """
        decision = route(routing, payment, channels, self.records, int(now_s), payment_id, tried)
        for rated in decision.rated:
            if rated.sick and rated.channel_id == decision.channel_id:
                self.records[rated.channel_id] = with_probe(self.records[rated.channel_id], int(now_s))
            elif rated.sick and not tried:
                self.records[rated.channel_id] = with_skip(self.records[rated.channel_id])
        return decision

    def record_success(self, routing: Routing, payment_id: str, channel_id: str, sent_s: float, now_s: float) -> None:
        """The payment that was sent to the channel at `sent_s` succeeded. Idempotent."""
        self._record(routing, payment_id, channel_id, ChannelOutcome.WORKED, sent_s, now_s)

    def record_failure(
        self, routing: Routing, payment_id: str, channel_id: str, code: str, sent_s: float, now_s: float
    ) -> None:
        """The payment failed for good, with the engine's code.

        Idempotent. Never call it for an unknown outcome.
        """
        self._record(routing, payment_id, channel_id, routing.blame.outcome(code), sent_s, now_s)

    def _record(
        self,
        routing: Routing,
        payment_id: str,
        channel_id: str,
        outcome: ChannelOutcome | None,
        sent_s: float,
        now_s: float,
    ) -> None:
        if outcome is None or (payment_id, channel_id) in self._counted:
            return
        self._counted[payment_id, channel_id] = None
        if len(self._counted) > MAX_COUNTED:
            self._counted.popitem(last=False)
        before = self.records.get(channel_id, ChannelRecord())
        self.records[channel_id] = with_outcome(
            before, outcome, int(sent_s), int(now_s), routing.learning, routing.sick
        )
        self.records.move_to_end(channel_id)
        if len(self.records) > MAX_CHANNELS:
            self.records.popitem(last=False)

    def __repr__(self) -> str:
        sick = [channel_id for channel_id, record in self.records.items() if record.sick]
        return f"<ChannelHealth channels={len(self.records)} sick={','.join(sick) or 'none'}>"
