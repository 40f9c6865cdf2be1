"""What `benchmarks/compare.py` is made of: the systems, their environments, running, scoring and the table."""
