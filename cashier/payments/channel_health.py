"""Routes: what one worker has learned of the channels, and the routes it gives. State and time meet here; every decision is in `domain`.

Each worker learns for itself, from the payments that it saw end. Nothing is shared, so nothing has to be reached to route a payment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence, Set

from cashier.domain.channel_health import ChannelOutcome, ChannelRecord, passed_over, probed, with_outcome
from cashier.domain.facts import Channel
from cashier.domain.routing import RoutingDecision, route
from cashier.domain.routing_rules import RoutedPayment, Routing

# Far more than any gateway has; a bound all the same. What was heard of longest ago goes, and is then as at a cold start.
MAX_CHANNELS = 10_000
# A payment is heard of by whoever polls it, and counts once. Later than so many others it would count again.
MAX_ENDED = 50_000


class ChannelHealth:
    """`records` by channel id. Times are seconds of one clock that only goes forward (`time.monotonic`)."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self.records: OrderedDict[str, ChannelRecord] = OrderedDict()
        self._ended: OrderedDict[tuple[str, str], None] = OrderedDict()

    def reconfigure(self, routing: Routing) -> None:
        """Other rules and numbers from now on. Nothing learned is lost."""
        self.routing = routing

    def route(
        self,
        passage: RoutedPayment,
        channels: Sequence[Channel],
        payment_id: str,
        now_s: float,
        tried: Set[str] = frozenset(),
    ) -> RoutingDecision:
        """See `routing.route`. To be called once a payment: sick channels are counted as tried or passed over."""
        found = route(self.routing, passage, channels, self.records, int(now_s), payment_id, tried)
        for rated in found.rated:
            if rated.sick and rated.channel_id == found.channel_id:
                self.records[rated.channel_id] = probed(self.records[rated.channel_id], int(now_s))
            elif rated.sick and not tried:
                self.records[rated.channel_id] = passed_over(self.records[rated.channel_id])
        return found

    def worked(self, payment_id: str, channel_id: str, began_s: float, now_s: float) -> None:
        """The payment that had gone to the channel at `began_s` succeeded. A second time it changes nothing."""
        self._hear(payment_id, channel_id, ChannelOutcome.WORKED, began_s, now_s)

    def failed(self, payment_id: str, channel_id: str, code: str, began_s: float, now_s: float) -> None:
        """It failed for good, with the engine's code. Never to be called for one whose fate is unknown."""
        self._hear(payment_id, channel_id, self.routing.blame.outcome(code), began_s, now_s)

    def _hear(
        self, payment_id: str, channel_id: str, outcome: ChannelOutcome | None, began_s: float, now_s: float
    ) -> None:
        if outcome is None or (payment_id, channel_id) in self._ended:
            return
        self._ended[payment_id, channel_id] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        before = self.records.get(channel_id, ChannelRecord())
        self.records[channel_id] = with_outcome(
            before, outcome, int(began_s), int(now_s), self.routing.learning, self.routing.sick
        )
        self.records.move_to_end(channel_id)
        if len(self.records) > MAX_CHANNELS:
            self.records.popitem(last=False)

    def __repr__(self) -> str:
        sick = [channel_id for channel_id, record in self.records.items() if record.sick]
        return f"<Routes {len(self.records)} channels heard of, sick: {', '.join(sick) or 'none'}>"
