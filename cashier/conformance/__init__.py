"""The conformance kit: a real service, checked over real HTTP against the upstream contract.

Answers are read by the parsers and structs of `sources`, so the kit and production agree.
"""

from cashier.conformance.examination import ConformSettings, endpoint, examine, examine_all
from cashier.conformance.report import ServiceReport, conforms

__all__ = ["ConformSettings", "ServiceReport", "conforms", "endpoint", "examine", "examine_all"]
