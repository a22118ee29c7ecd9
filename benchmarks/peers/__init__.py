"""The peers: other programs that make the same calls at once, without domain work.

The first one is cashier's own fan-out without its domain, for a like-for-like comparison.
"""

from benchmarks.peers.go import GO
from benchmarks.peers.nginx import NGINX_LUA, NGINX_LUA_CACHED
from benchmarks.peers.node import NODE
from benchmarks.peers.peer import Peer
from benchmarks.peers.python import AIOHTTP, FASTAPI_HTTPX, OWN_FANOUT
from benchmarks.peers.versions import versions

# By cost, except that ours comes first and the cached nginx follows the other one.
PEERS = (OWN_FANOUT, NGINX_LUA, NGINX_LUA_CACHED, GO, NODE, AIOHTTP, FASTAPI_HTTPX)

__all__ = ["PEERS", "Peer", "versions"]
