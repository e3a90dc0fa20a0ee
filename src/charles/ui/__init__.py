"""What a person looks at: the console, plots and films."""
