"""A second level that all workers share, in Valkey or Redis. `valkey` is the whole, the rest are its parts."""
