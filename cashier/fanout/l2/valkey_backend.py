"""What is asked of a Valkey or Redis server: the bounds, the key names and the two scripts.

`valkey_cache` decides when.

An answer is stored with two tokens: the version of its first key segment, and the newest text
prefix of its source. It is valid while the version still exists unchanged, and no later text prefix
covers its key. So an invalidation writes one token, and never looks for keys; and a server that
was emptied, or evicted a token, costs misses.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TypeAlias

from msgspec import Struct

from cashier.fanout.l2.invalidation import QueuedInvalidation, segment_of
from cashier.fanout.l2.resp import (
    LARGEST_REPLY,
    MalformedReplyError,
    NoScriptError,
    ReadOnlyError,
    Reply,
    ResponseError,
    arguments,
    command,
    encoded,
)
from cashier.fanout.l2.valkey_connection import OnReply, ValkeyConnection

NAMESPACE = "cashier:1"
# Workers of all releases share the channel, so messages change by additional fields only.
CHANNEL = f"{NAMESPACE}:dropped"
# Increment the number when entries or tokens change: releases then ignore each other's. All keys
# have one hash tag, so that a script may use three of them on a server in cluster mode.
_ENTRIES = "cashier:2:{l2}"
_TOKEN_BYTES = 8
VERSION_BYTES = 2 * _TOKEN_BYTES
# A token outlives every call that may have read its predecessor. A write extends it beyond the
# answer's life; an answer whose token is gone is a miss.
_TOKEN_MS = 600_000
# Text prefixes of a source that are kept apart. Answers older than these are misses.
TEXT_PREFIXES = 64
_LONGEST_ANSWER_MS = 86_400_000

_TOKENS = """
local ABSENT = string.rep('\\0', 8)
local function token(value)
  if value and #value >= 8 then return string.sub(value, 1, 8) end
  return ABSENT
end
local version, wide = token(redis.call('GET', KEYS[2])), token(redis.call('LINDEX', KEYS[3], 0))
"""


class Script:
    """A Lua script on the keys of an answer, called by its digest.

    `further`: how many arguments it takes after the three keys.
    """

    __slots__ = ("_by_digest", "_by_text", "text")

    def __init__(self, text: str, further: int) -> None:
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        count = b"*%d\r\n" % (6 + further)
        self.text = text
        self._by_digest = count + arguments(b"EVALSHA", digest.encode(), b"3")
        self._by_text = count + arguments(b"EVAL", text.encode(), b"3")

    def send(self, connection: ValkeyConnection, packed: bytes, on_reply: OnReply) -> None:
        """See `ValkeyConnection.send`. `packed`: the keys and further arguments."""

        def take(reply: Reply) -> None:
            if type(reply) is NoScriptError:
                connection.send(self._by_text + packed, on_reply)
            else:
                on_reply(reply)

        connection.send(self._by_digest + packed, take)


# Takes the key, two new tokens and their ms to live. Returns those tokens, so that the reply to
# another read is never taken for its own; then the version of now, then the answer if it is valid.
# One that is larger than any that is written is foreign. Makes tokens that are absent: else an
# invalidation and an eviction during a call would together look as if nothing had happened. On a
# server that takes no writes there is no version.
READ = Script(
    _TOKENS
    + f"local LARGEST = {LARGEST_REPLY - 1024}"
    + """
local entry = redis.call('GET', KEYS[1])
if version == ABSENT then
  version, entry = string.sub(ARGV[2], 1, 8), false
  local reply = redis.pcall('SET', KEYS[2], version, 'PX', ARGV[3])
  if reply.err then return ARGV[2] end
end
if wide == ABSENT then
  wide, entry = string.sub(ARGV[2], 9, 16), false
  redis.call('DEL', KEYS[3])
  if type(redis.pcall('LPUSH', KEYS[3], wide)) == 'table' then return ARGV[2] end
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
local head = ARGV[2] .. version .. wide
if not entry or #entry > LARGEST or string.sub(entry, 1, 8) ~= version then return head end
local written = string.sub(entry, 9, 16)
if written ~= wide then
  local found = false
  for _, item in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
    if string.sub(item, 1, 8) == written then found = true break end
    if string.sub(ARGV[1], 1, #item - 8) == string.sub(item, 9) then break end
  end
  if not found then return head end
end
return head .. string.sub(entry, 17)
""",
    3,
)

# Takes the version that was read before the call, the answer, its ms to live and those of a token.
# Returns 0 if an invalidation came since then, else 1. A younger answer stays.
WRITE = Script(
    _TOKENS
    + """
if ARGV[1] ~= version .. wide then return 0 end
local ms, kept_ms = tonumber(ARGV[3]), tonumber(ARGV[3]) + tonumber(ARGV[4])
if redis.call('PTTL', KEYS[2]) < ms then redis.call('PEXPIRE', KEYS[2], kept_ms) end
if redis.call('PTTL', KEYS[3]) < ms then redis.call('PEXPIRE', KEYS[3], kept_ms) end
local entry = redis.call('GET', KEYS[1])
local born = string.sub(ARGV[2], 3, 10)
if not entry or string.sub(entry, 1, 16) ~= ARGV[1] or string.sub(entry, 19, 26) <= born then
  redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ms)
end
return 1
""",
    4,
)

# The answer, the version of its segment, the text prefixes of its source.
EntryKeys: TypeAlias = tuple[bytes, bytes, bytes]


class ValkeySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`get_ms`: a read that takes longer is a miss, and slow.

    `command_ms`: the same for background commands, and the longest wait for the acknowledgement of
    an invalidation.

    `gets`: concurrent reads, and as many scripts. `writes`: queued writes, and as many
    invalidations. `alone_ms`: the least time before a lost server is probed.
    `silence_ms`: after this time without a message the subscription is checked, and as often the
    server's role. `close_ms`: the longest wait for queued invalidations at a stop.
    """

    get_ms: int = 20
    command_ms: int = 1000
    gets: int = 256
    writes: int = 2000
    alone_ms: int = 500
    silence_ms: int = 1000
    close_ms: int = 5000


async def require_primary(connection: ValkeyConnection) -> None:
    """Raises ReadOnlyError for a replica: it does not get the messages of all workers."""
    (role,) = await connection.ask(command("ROLE"))
    if isinstance(role, ResponseError):  # of a proxy without this command; a write will show
        return
    if not isinstance(role, list):
        raise MalformedReplyError("the reply to another command")
    if role[:1] == [b"slave"]:
        raise ReadOnlyError("the server is a replica")


async def epoch_of(connection: ValkeyConnection) -> str:
    """Identify the server's run: it differs after a restart and after a failover."""
    (server,) = await connection.ask(command("INFO", "server"))
    run_id = re.search(rb"^run_id:(\w{1,16})", server, re.MULTILINE) if isinstance(server, bytes) else None
    return "0" if run_id is None else run_id[1].decode("ascii", "replace")  # a proxy without this command


def key_of(source: str, key: str) -> bytes:
    """The name of a key outside the cache."""
    return encoded(f"{NAMESPACE}:{source}:{key}")


def entry_keys(epoch: str, source: str, key: str) -> EntryKeys:
    """`epoch`: the server's run. Answers from before a restart or a failover are not read."""
    start = f"{_ENTRIES}:{epoch}:{source}"
    return (
        encoded(f"{start}:answer:{key}"),
        encoded(f"{start}:version:{segment_of(key)}"),
        encoded(f"{start}:prefixes"),
    )


def invalidating_commands(epoch: str, invalidation: QueuedInvalidation, token: bytes) -> tuple[list[bytes], bytes]:
    """Return the commands that invalidate what is stored, and the key that they write.

    Without that key the same answers are invalid, and more.
    """
    segment, key = invalidation.segment, invalidation.key
    entry_key, version_key, prefixes_key = entry_keys(
        epoch, invalidation.source, key if key is not None else segment or ""
    )
    if segment is not None:
        new_version = command("SET", version_key, token, "PX", _TOKEN_MS)
        return [new_version] if key is None else [new_version, command("UNLINK", entry_key)], version_key
    return [
        command("LPUSH", prefixes_key, token + encoded(invalidation.prefix or "")),
        command("LTRIM", prefixes_key, 0, TEXT_PREFIXES - 1),
        command("PEXPIRE", prefixes_key, _TOKEN_MS + _LONGEST_ANSWER_MS),
    ], prefixes_key


def read_arguments(epoch: str, source: str, key: str, tokens: bytes) -> bytes:
    """The arguments of `READ`. `tokens`: `VERSION_BYTES` random bytes."""
    return arguments(*entry_keys(epoch, source, key), encoded(key), tokens, b"%d" % _TOKEN_MS)


def write_arguments(keys: EntryKeys, version: bytes, packed: bytes, ttl_ms: int) -> bytes:
    """The arguments of `WRITE`."""
    return arguments(*keys, version, packed, b"%d" % ttl_ms, b"%d" % _TOKEN_MS)


def new_token() -> bytes:
    """A token of an invalidation. Never sent twice, so that no late command restores a version."""
    return os.urandom(_TOKEN_BYTES)
