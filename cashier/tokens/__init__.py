"""The tokens: what is signed and handed to callers to keep. No state, no clock, no I/O."""
