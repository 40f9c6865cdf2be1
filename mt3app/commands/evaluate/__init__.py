"""`mt3 evaluate`: files of notes, or a model on a data set."""
