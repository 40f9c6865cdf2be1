"""Pieces made up by rule from a seed in many styles, to train on."""
