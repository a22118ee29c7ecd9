"""The conformance kit: a real service, checked over real HTTP against the upstream contract.

Answers are read by the parsers and structs of `sources`, so the kit and production agree.
"""
