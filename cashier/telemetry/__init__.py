"""The worker's side of what operators see: its state, records, log lines and traces."""
