"""A person's own pad or wheel, read while the game is played: one file per system."""
