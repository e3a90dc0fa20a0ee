"""MetaDrive 0.3.0.1 as a game. Nothing of it is imported before a game is made."""
