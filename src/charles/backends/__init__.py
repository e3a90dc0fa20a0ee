"""What computes a policy's predictions: JAX, or another runtime that is given the same network."""
