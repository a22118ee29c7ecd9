"""Tests of the upstream contract's documents."""
