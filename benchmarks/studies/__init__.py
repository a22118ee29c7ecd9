"""The studies: one file, one question, one finding."""
