"""What operators see: logs. Nothing of it is on the hot path."""
