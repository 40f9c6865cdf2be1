"""The parts of `benchmarks/compare.py`: the systems, their environments, running, scoring and the table."""
