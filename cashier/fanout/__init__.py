"""Payment-blind scatter over the sources of a plan, and its resilience mechanisms."""
