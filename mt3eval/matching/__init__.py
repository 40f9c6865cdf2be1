"""Which notes of two performances belong together, and scores of that."""
