"""What a worker reports of single consultations and payments: records, spans, log lines."""
