"""Capacity model: a simulation of the cores, upstream calls and Valkey operations that a rate
needs.
"""
