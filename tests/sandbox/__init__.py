"""Tests of the sandbox. They know the contract and the sandbox, nothing of the product."""
