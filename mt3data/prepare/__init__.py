"""Data sets prepared for training: chunks in shards, with a manifest."""
