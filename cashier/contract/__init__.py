"""The upstream contract as data and documents: what a company's services answer, call by call.

Everything is derived from the functions that make the requests and the structs that decode the
answers; prose and examples are package data.
"""

from __future__ import annotations

from cashier.contract.operations import OPERATIONS, Operation

__all__ = ["OPERATIONS", "Operation"]
