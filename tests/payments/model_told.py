"""What clients were told, held against each other and against the ledger. Here is the proof's own opinion of what may be said when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec import Struct, field

from cashier.consultation.flow import ConsultError
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL, NEXT, PaymentStatus
from cashier.payments.errors import AcceptError, CheckUnavailable, ConsultChanged, OrderBusy
from cashier.sandbox import World
from cashier.tokens.jws import TokenRefused
from tests.payments.model_payer import Submit
from tests.payments.model_workers import Trace

_BUSY_AT_THE_START = "pay_o_1006"
# What the engine refuses as wrong in itself. Nobody who has checked sends it.
_NEVER_SENT = frozenset(
    {"AMOUNT_MISMATCH", "PARTIES_MISMATCH", "TOO_MANY_CHANNELS", "PROMOTION_MISMATCH", "AUTH_CODE_REQUIRED"}
)
# As long as a look may last.
_LOOK_S = 2.0
REFUSALS = (AcceptError, ConsultError, TokenRefused)
# What may still be told of a payment that ended before the engine ever had it. Whether its challenge was spent or ran out, and whether it
# is over at all, stands in the payer's token alone; an older one tells it as it was then. No money can come of any of these.
_UNSENT = frozenset({PaymentStatus.FAILED, PaymentStatus.CLOSED, PaymentStatus.CHALLENGE, PaymentStatus.PROCESSING})


class Story(Struct):
    """Of one payment: the tokens that anybody got, and what was told last. `told_at`: when, in the order of all events;
    `final_at_s`: by the loop's clock.

    `never_sent`: the engine did not have it when its end was told.
    """

    payment_id: str
    order_id: str
    told: PaymentStatus
    told_at: int
    tokens: list[str] = field(default_factory=list)
    final: PaymentStatus | None = None
    final_at_s: float = 0.0
    never_sent: bool = False

    def may_be(self, status: PaymentStatus, *, silence: bool) -> bool:
        """After its end. Nothing is remembered, so in a silence nobody can say more than that it is not known now."""
        return (
            status is self.final
            or (self.never_sent and status in _UNSENT)
            or (silence and status is PaymentStatus.PROCESSING)
        )


class Book:
    """The ledger, read once."""

    def __init__(self, world: World) -> None:
        self.paid: dict[str, list[str]] = {}
        self.kept: Counter[str] = Counter()
        self.money: Counter[str] = Counter()
        for entry in world.ledger.entries:
            if entry.what == "ORDER_PAID":
                self.paid.setdefault(entry.order_id, []).append(entry.payment_id)
            if entry.source is not None:
                self.kept[entry.payment_id] += entry.moved
                if not entry.source.startswith("PROMOTION"):
                    self.money[entry.payment_id] += entry.moved


class Moment(NamedTuple):
    """`place` in the order of all events, and when by the loop's clock."""

    place: int
    at_s: float


class Told:
    """`wrong`: sentences, that no history may leave. `stories` by payment id. `trouble_s`: when something last went wrong outside.

    `bodies`: the fingerprints that were submitted under a payment's id. `with_device`: those of which something was told of a device.
    """

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self.trouble_s = float("-inf")
        self.bodies: dict[str, set[str]] = {}
        self.with_device: set[str] = set()
        self._clock = clock
        self.stories: dict[str, Story] = {}
        self.wrong: list[str] = []
        self.heard: Counter[str] = Counter()
        self._world = world
        self._events = 0

    def begins(self) -> Moment:
        """The moment of a call."""
        self._events += 1
        return Moment(self._events, self._clock())

    def trouble(self) -> None:
        self.trouble_s = self._clock()

    def silence_since(self, began: Moment) -> bool:
        """Whether anybody may have been silent. A look that is shared began earlier, and what hangs is given up after some seconds."""
        return self.trouble_s >= began.at_s - 10

    def payment(self, began: Moment, payment: Payment, submit: Submit | None = None) -> None:
        now, status = self.begins().place, payment.status
        self.heard[status] += 1
        story = self.stories.get(payment.payment_id)
        if story is None:
            story = self.stories[payment.payment_id] = Story(payment.payment_id, payment.order_id, status, now)
        elif began.place > story.told_at:
            self._move(story, status)
        self.wrong += [f"{payment.payment_id}: {each}" for each in self._against(story, payment, began, submit)]
        if payment.payment_token not in story.tokens:
            story.tokens.append(payment.payment_token)
        story.told, story.told_at = status, now
        if status in FINAL and story.final is None:
            story.final, story.final_at_s = status, self._clock()
            story.never_sent = self._world.engine.attempt(story.payment_id) is None

    def refused(self, error: BaseException, trace: Trace) -> None:
        self.heard[type(error).__name__] += 1
        if not isinstance(error, REFUSALS):
            self.wrong.append(f"a call raised {error!r}")
        if trace.took:
            self.wrong.append(f"a call raised {error!r} and had {trace.took} taken on by the engine")
        if (
            isinstance(error, OrderBusy)
            and self._world.engine.attempt(error.payment_id) is None
            and error.payment_id != _BUSY_AT_THE_START
        ):
            self.wrong.append(f"busy with {error.payment_id}, which nobody has")
        if isinstance(error, ConsultChanged) and not error.changes:
            self.wrong.append("a change was told, and none of it")
        if isinstance(error, CheckUnavailable) and not error.silent:
            self.wrong.append("somebody was silent, and nobody is named")

    def against_the_ledger(self) -> Iterator[str]:
        """What was told once for all is so now, whatever has happened since."""
        book = Book(self._world)
        for order_id, paid in book.paid.items():
            if len(paid) > 1:
                yield f"{order_id} is paid by {paid}"
        for payment_id in {entry.payment_id for entry in self._world.ledger.entries if entry.what == "REFUSED"}:
            attempt = self._world.engine.attempt(payment_id)
            # Of another device, and of another body, risk decides anew, and what it decided before counts no more.
            same = len(self.bodies.get(payment_id, ())) <= 1 and payment_id not in self.with_device
            wrong = _NEVER_SENT | {"RISK_NOT_CLEARED"} if same else _NEVER_SENT
            if attempt is not None and attempt.failure is not None and attempt.failure.code in wrong:
                yield f"{payment_id} was sent, and refused with {attempt.failure.code}"
        for story in self.stories.values():
            paid_by_it = story.payment_id in book.paid.get(story.order_id, ())
            if story.final is not None and (story.final is PaymentStatus.SUCCEEDED) != paid_by_it:
                yield f"{story.payment_id} was told {story.final}, and paid its order: {paid_by_it}"
            if story.final is not None and story.payment_id in self._world.engine.live:
                yield f"{story.payment_id} was told {story.final}, and lives"
            if story.final not in (None, PaymentStatus.SUCCEEDED) and book.kept[story.payment_id]:
                yield f"{story.payment_id} was told {story.final} and keeps {book.kept[story.payment_id]}"

    def _move(self, story: Story, status: PaymentStatus) -> None:
        if story.final is None and status is not story.told and status not in NEXT[story.told].values():
            self.wrong.append(f"{story.payment_id} was told {story.told}, then {status}")

    def _against(self, story: Story, payment: Payment, began: Moment, submit: Submit | None) -> Iterator[str]:
        status = payment.status
        silence = self.silence_since(began)
        # A look that is under way is shared with whoever comes meanwhile, and may be older than what they were told elsewhere.
        late = status in FINAL or began.at_s > story.final_at_s + _LOOK_S
        if story.final is not None and late and not story.may_be(status, silence=silence):
            yield f"told {story.final} for good, and now {status}"
        if (payment.challenge is not None) != (status is PaymentStatus.CHALLENGE):
            yield f"{status} with the challenge {payment.challenge}"
        if (payment.poll_after_ms is None) != (status in FINAL or status is PaymentStatus.CHALLENGE):
            yield f"{status} to be polled after {payment.poll_after_ms}"
        if submit is not None and (payment.payment_id, payment.amount) != (
            submit.payment_id,
            submit.request.expected_payable,
        ):
            yield f"asked for {submit}, told {payment.payment_id} of {payment.amount}"
        attempt = self._world.engine.attempt(payment.payment_id)
        if submit is not None and attempt is not None and attempt.submission.fingerprint != submit.fingerprint:
            yield f"asked for {submit}, told of what was asked for with another body"
        # Under a key that was used with several bodies, of which the first never arrived, a token of that one tells its own amount.
        if status is PaymentStatus.SUCCEEDED and Book(self._world).money[payment.payment_id] != payment.amount.value:
            yield f"told that {payment.amount} was paid, and {Book(self._world).money[payment.payment_id]} was"
