"""Training: what a step computes, where it is computed, how it is saved and reported."""
