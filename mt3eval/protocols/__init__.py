"""Each published way of scoring, one file a paper or library."""
