"""Town, the built-in game: a seeded town with traffic, weather, a camera and a teacher."""

VERSION = 1
"""Raised wherever the same town looks or drives otherwise, so that what was learned there may not
hold any more."""
