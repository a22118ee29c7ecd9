"""The operations port: metrics of all workers, records, console. Serves no payer."""
