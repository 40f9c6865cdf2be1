"""Synthetic music and sound: a composer, synthesizers, and data sets rendered in the layouts of real ones."""
