"""The studies: one question and one finding each. Module, study and finding share one name."""
