"""Authentication towards upstream services: credentials, signatures, and the check of answers."""
