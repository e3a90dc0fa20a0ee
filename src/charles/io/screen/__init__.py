"""Pictures of a game that does not hand them out: screens, windows, recordings."""
