"""What each source asks, and what it makes of answers."""
