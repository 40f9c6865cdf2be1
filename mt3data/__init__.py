"""Data sets on disk: readers of their layouts, checks, and their preparation as chunks for training."""
