"""Loss and decoded pieces of a fixed sample while training."""
