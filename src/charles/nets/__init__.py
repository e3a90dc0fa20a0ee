"""Networks. Flax NNX lives only in this room; outside it a network is two pure functions."""
