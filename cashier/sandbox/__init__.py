"""The sandbox: the ten upstreams of the contract, stateful, in a seeded world, under weather that can be changed while they run.

An independent implementation of the other side: nothing here imports from the rest of the project, so that what both sides agree on
is the contract and not shared code.
"""

from __future__ import annotations

from cashier.sandbox.demo_cases import CASES, DemoCase
from cashier.sandbox.in_process import LocalUpstreams, InjectedFault
from cashier.sandbox.in_process_payments import LocalPayments
from cashier.sandbox.server import create_app, serve
from cashier.sandbox.weather import SOURCES, Fault, PaymentFault, Weather
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
    "LocalPayments",
    "LocalUpstreams",
    "PaymentFault",
    "InjectedFault",
    "Weather",
    "World",
    "create_app",
    "parse_profile",
    "serve",
    "weather_named",
]
