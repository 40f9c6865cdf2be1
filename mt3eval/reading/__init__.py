"""References and estimates read for scoring."""
