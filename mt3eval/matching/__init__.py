"""Which notes of two performances belong together, and scores based on that."""
