"""Presentation of the results: terminal tables, and one HTML page with charts."""
