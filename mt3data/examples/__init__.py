"""Training examples made of prepared chunks."""
