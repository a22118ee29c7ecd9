"""Tests of the sandbox. They know the contract and the sandbox, and nothing of the product."""
