"""Pieces composed by rule from a seed in many styles, to train on."""
