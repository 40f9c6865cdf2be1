"""Music and sound made here: a composer, synthesizers, and data sets rendered in the layouts of real ones."""
