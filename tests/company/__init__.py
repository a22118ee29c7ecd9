"""A company whose eleven services are all shaped in ways of their own, and its adapters."""
