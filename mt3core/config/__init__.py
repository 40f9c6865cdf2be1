"""What defines a model, a data set, a training run and an evaluation, as frozen dataclasses."""
