"""Data sets made ready for training: chunks in shards, with a manifest."""
