"""Everything that touches the world outside: games, pads and the wire. Never imports JAX."""
