"""What all workers share, in Valkey or Redis. `valkey` is the whole, `live_attempts` goes through it, the rest are its parts."""
