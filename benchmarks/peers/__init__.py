"""The peers: other programs that make the same calls at once, without domain work.

The first one is cashier's own fan-out without its domain, for a like-for-like comparison.
"""

from benchmarks.peers.catalog import GATEWAYS, OURS, PEERS, Peer, Program, start_programs, versions

__all__ = ["GATEWAYS", "OURS", "PEERS", "Peer", "Program", "start_programs", "versions"]
