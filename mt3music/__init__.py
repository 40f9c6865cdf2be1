"""Musical time and notation: where the beats and bars of a recording are, notes on a grid, and sheet music."""

from mt3music.tempo import add_tempo

__all__ = ["add_tempo"]
