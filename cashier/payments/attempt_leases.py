"""Claims that workers share in a store: for each key, its one holder; and small sets to count.

A hint, never a lock. A claim can be lost, evicted, late or wrong; then another holder is noticed
later, by the engine. So a claim waits no longer than one read of the store, and store failures
raise nothing: the result is `AttemptUnknown`.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from cashier.fanout.l2.valkey_backend import key_of

# No source has such a name, so no invalidation reaches these keys.
_NAMESPACE = "@live"
_MAX_HOLDER_LENGTH = 128
# Upper bound of a claim that is not renewed.
LONGEST_MS = 3_600_000

# Returns the holder. Never replaces another holder, and never shortens a claim.
_CLAIM = """
local holder = redis.call('GET', KEYS[1])
if not holder then
  redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
elseif holder == ARGV[1] then
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
return holder or ARGV[1]
"""
# Adds to a set and returns its size. An empty member only asks. The set ends after a fixed time.
_COUNT = """
if ARGV[1] ~= '' then redis.call('SADD', KEYS[1], ARGV[1]) end
local size = redis.call('SCARD', KEYS[1])
if size > 0 and redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return size
"""
# Only the holder can release.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class OwnAttempt(Struct, frozen=True):
    """The claim is ours, as far as the store knows."""


class OtherAttempt(Struct, frozen=True):
    """Another holder was first.

    Verify before relying on it: it may be over, and its worker gone.
    """

    holder: str


class AttemptUnknown(Struct, frozen=True):
    """The store gave no usable answer."""


ClaimResult: TypeAlias = OwnAttempt | OtherAttempt | AttemptUnknown


class ScriptStore(Protocol):
    """A shared store that runs a script on one key.

    Returns None if the store did not answer in time.
    """

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any: ...


class AttemptLeases:
    """Claims and releases keys. Without a store every claim is `AttemptUnknown`, at no cost."""

    def __init__(self, store: ScriptStore | None) -> None:
        self._store = store
        self.own = self.other = self.unknown = 0

    def __repr__(self) -> str:
        return f"<AttemptLeases own={self.own} other={self.other} unknown={self.unknown}>"

    @property
    def shared(self) -> bool:
        """True if a store is configured."""
        return self._store is not None

    async def claim(self, key: str, holder: str, ttl_ms: int) -> ClaimResult:
        """Claim `key` for `ttl_ms`, at most an hour, or renew the own claim.

        `holder`: 1 to 128 visible ASCII characters. Raises ValueError for another holder: that is
        our bug.
        """
        if not _is_holder(holder) or ttl_ms < 1:
            raise ValueError("a holder has 1 to 128 visible ASCII characters, and its claim lasts at least 1 ms")
        reply = (
            None
            if self._store is None
            else await self._store.run_script(_CLAIM, _store_key(key), holder, min(ttl_ms, LONGEST_MS))
        )
        return self._counted(_claim_result(reply, holder))

    async def release(self, key: str, holder: str) -> bool:
        """Release the own claim; return whether there was one.

        If the store is unreachable, the claim expires.
        """
        return self._store is not None and await self._store.run_script(_RELEASE, _store_key(key), holder) == 1

    async def count(self, key: str, member: str = "", ttl_ms: int = LONGEST_MS) -> int:
        """The size of the set `key`, after adding `member`. 0 without a usable answer.

        It ends `ttl_ms` after its first member.
        """
        if self._store is None:
            return 0
        size = await self._store.run_script(_COUNT, _store_key(key), member, ttl_ms)
        return size if type(size) is int else 0

    def _counted(self, result: ClaimResult) -> ClaimResult:
        match result:
            case OwnAttempt():
                self.own += 1
            case OtherAttempt():
                self.other += 1
            case AttemptUnknown():
                self.unknown += 1
        return result


def _claim_result(reply: Any, holder: str) -> ClaimResult:
    """The store's content is not trusted: a reply that is no valid holder counts as unknown."""
    if not isinstance(reply, bytes):
        return AttemptUnknown()
    text = reply.decode("latin-1")
    if text == holder:
        return OwnAttempt()
    return OtherAttempt(text) if _is_holder(text) else AttemptUnknown()


def _is_holder(text: str) -> bool:
    return 0 < len(text) <= _MAX_HOLDER_LENGTH and text.isascii() and text.isprintable() and " " not in text


def _store_key(key: str) -> bytes:
    return key_of(_NAMESPACE, key)
