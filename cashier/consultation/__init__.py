"""Consultation: query every source, assemble and rank payment methods, answer by the deadline."""
