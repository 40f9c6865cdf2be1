"""What a model consists of: its parameters by name, and the directory that stores it."""
