"""Synthetic sound: samplers, synthesizers, and data sets rendered in the layouts of real ones."""
