"""Town, the built-in game: a seeded town with traffic, weather, a camera and a teacher."""
