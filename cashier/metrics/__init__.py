"""Counters, gauges and histograms: one writer each, read by another process, and without locks."""
