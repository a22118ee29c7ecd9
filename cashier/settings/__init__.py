"""Settings: their schema, their loader, and the plugins that a configuration names."""
