"""What a person sees of the results: the terminal, and one HTML page with drawings. Measures nothing."""
