"""The published ways of scoring, one file per paper or library."""
