"""The sandbox: the upstream services of the contract, simulated with state, seed and faults.

It imports nothing from the rest of the project: both sides share the contract and no code.
"""

from __future__ import annotations

from cashier.sandbox.demo_cases import CASES, DemoCase
from cashier.sandbox.in_process_payments import LocalPayments
from cashier.sandbox.in_process_sources import InjectedFault, LocalUpstreams
from cashier.sandbox.server import create_app, serve
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.weather import Fault, PaymentFault, Weather
from cashier.sandbox.weather_parser import BadWeather, parse_profile
from cashier.sandbox.weather_presets import PRESETS, weather_named
from cashier.sandbox.world import World

__all__ = [
    "CASES",
    "PRESETS",
    "SOURCES",
    "BadWeather",
    "DemoCase",
    "Fault",
    "InjectedFault",
    "LocalPayments",
    "LocalUpstreams",
    "PaymentFault",
    "Weather",
    "World",
    "create_app",
    "parse_profile",
    "serve",
    "weather_named",
]
