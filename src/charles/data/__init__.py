"""The data plane: a shared-memory frame pool, index rings, balancing, buffers and storage.

Nothing here imports JAX, except ``charles.data.device``.
"""
