"""Training examples made from prepared chunks."""
