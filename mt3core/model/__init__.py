"""What a model is: its parameters by name, and the directory it is kept in."""
