"""Tests of acceptance, in virtual time over the sandbox's world. Its ledger is the oracle."""
