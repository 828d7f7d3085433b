"""What a user describes: the form of a scenario, how a file becomes one, and what is wrong with it, where."""
