"""From host buffers to the device. The only module of this room that imports JAX."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Sharding

_ALIGNMENT = 64
"""From memory at such an address a CPU device reads in place; any other it copies once more."""


def put(batch: Mapping[str, np.ndarray], sharding: Sharding) -> dict[str, jax.Array]:
    """Copy a gathered batch onto the device.

    Blocks until the copy is done, so the host buffers may be rewritten as soon as this returns. May
    be called from a prefetch thread.

    Args:
        batch: Host arrays; the first axis is the batch.
        sharding: How they are to lie, see :func:`charles.train_step.batch_sharding`.

    Returns:
        The same entries as device arrays.
    """
    host = dict(batch)
    if any(device.platform == "cpu" for device in sharding.device_set):
        # A CPU device uses the host's memory as it is (may_alias=False does not prevent that), so
        # it gets memory of its own.
        host = {name: _private_copy(array) for name, array in host.items()}
    return jax.block_until_ready(jax.device_put(host, sharding))


def _private_copy(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy
