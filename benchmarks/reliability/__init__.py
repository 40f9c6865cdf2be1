"""Parts of `benchmarks/campaign.py`: what it mutates, reads, kills and counts."""
