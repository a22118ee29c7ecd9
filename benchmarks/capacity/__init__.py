"""Past this machine: how many cores, upstream calls and Valkey operations a rate of consultations needs, from a simulation."""
