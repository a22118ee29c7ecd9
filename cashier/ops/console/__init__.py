"""The console: pages of the operations port for people. Server-rendered, and live by events."""
