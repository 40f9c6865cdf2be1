"""One update of a run: its input, its loss, its rule, and where it is computed."""
