"""A run around its steps: forecast, checkpoints, log, console, signals."""
