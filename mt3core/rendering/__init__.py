"""Audio from MIDI: synthesizers, and data sets rendered in the layouts of real ones."""
