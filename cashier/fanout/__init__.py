"""Questions, needs and time. Payment-blind: nothing here knows what is asked, only who waits for whom and until when."""
