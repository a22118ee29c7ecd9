"""Who is at something now: a key, and its one holder, told by all workers to each other in a shared store.

A hint, never a lock. It can be lost, evicted, late or wrong, and then nothing is different but that somebody hears of the other later, from
who knows. So it keeps nobody waiting for longer than a read, and whatever the store does raises nothing: what cannot be had is `AttemptUnknown`.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from cashier.fanout.l2.valkey_client import key_of

# No source has such a name, so no invalidation reaches these keys.
_PLACE = "@live"
_LONGEST_HOLDER = 128
# A life that nobody renews ends, whatever was asked for.
LONGEST_MS = 3_600_000

# The holder is told, and nothing changes where it is another. A longer life than was asked for is not cut short. Only the owner ends it.
_LIVE = """
local holder = redis.call('GET', KEYS[1])
if not holder then
  redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
elseif holder == ARGV[1] then
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
return holder or ARGV[1]
"""
_END = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class OwnAttempt(Struct, frozen=True):
    """The attempt is the one that lives, as far as anybody has said."""


class OtherAttempt(Struct, frozen=True):
    """Another one has said so first. To be asked, not to be believed: it may be over, and its worker gone."""

    holder: str


class AttemptUnknown(Struct, frozen=True):
    """The store did not say."""


Standing: TypeAlias = OwnAttempt | OtherAttempt | AttemptUnknown


class ScriptStore(Protocol):
    """A shared store that runs a script on one key. `None` where it did not answer, in time or at all."""

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any: ...


class LiveAttempts:
    """Says which attempt lives, and hears whether another does. Without a store it knows nothing, at no cost."""

    def __init__(self, store: ScriptStore | None) -> None:
        self._store = store
        self.mine = self.others = self.unknown = 0

    def __repr__(self) -> str:
        return f"<LiveAttempts mine={self.mine} others={self.others} unknown={self.unknown}>"

    @property
    def shared(self) -> bool:
        """Whether there is a store at all."""
        return self._store is not None

    async def live(self, key: str, holder: str, ttl_ms: int) -> Standing:
        """Say that this one lives for `ttl_ms` more, an hour at most. Saying it again renews it.

        `holder`: 1 to 128 visible ASCII characters. Raises ValueError for another, which is a mistake of ours and not of the store's.
        """
        if not _is_holder(holder) or ttl_ms < 1:
            raise ValueError("a holder has 1 to 128 visible ASCII characters, and lives for at least a millisecond")
        told = (
            None
            if self._store is None
            else await self._store.run_script(_LIVE, _key(key), holder, min(ttl_ms, LONGEST_MS))
        )
        return self._counted(_standing(told, holder))

    async def end(self, key: str, holder: str) -> bool:
        """Whether it was this one that lived, and no longer does. Where that cannot be had its time runs out."""
        return self._store is not None and await self._store.run_script(_END, _key(key), holder) == 1

    def _counted(self, standing: Standing) -> Standing:
        match standing:
            case OwnAttempt():
                self.mine += 1
            case OtherAttempt():
                self.others += 1
            case AttemptUnknown():
                self.unknown += 1
        return standing


def _standing(told: Any, holder: str) -> Standing:
    """What a store says is not believed to be what was written there."""
    if not isinstance(told, bytes):
        return AttemptUnknown()
    text = told.decode("latin-1")
    if text == holder:
        return OwnAttempt()
    return OtherAttempt(text) if _is_holder(text) else AttemptUnknown()


def _is_holder(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_HOLDER and text.isascii() and text.isprintable() and " " not in text


def _key(key: str) -> bytes:
    return key_of(_PLACE, key)
