"""What others would use instead of us. Each makes the same eight calls at once and merges them barely; none does the work of the domain.

The first is our own fan-out without its domain: like for like.
"""

from benchmarks.peers.go import GO
from benchmarks.peers.nginx import NGINX_LUA, NGINX_LUA_CACHED
from benchmarks.peers.node import NODE
from benchmarks.peers.peer import Peer
from benchmarks.peers.python import AIOHTTP, FASTAPI_HTTPX, OWN_FANOUT
from benchmarks.peers.versions import versions

# The cheapest first, but for our own, and that a cached one stands beside its own.
PEERS = (OWN_FANOUT, NGINX_LUA, NGINX_LUA_CACHED, GO, NODE, AIOHTTP, FASTAPI_HTTPX)

__all__ = ["PEERS", "Peer", "versions"]
