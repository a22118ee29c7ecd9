"""Tests of the sources: requests, and facts made of answers."""
