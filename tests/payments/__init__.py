"""Tests of the acceptance flow. They pay as a shop would, in virtual time, and ask the ledger what became of it."""
