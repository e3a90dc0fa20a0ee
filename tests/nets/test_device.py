"""Moving batches to the device."""

import jax
import numpy as np
import pytest

from charles.data.device import put
from charles.train_step import batch_sharding, make_mesh


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_device_batch_stays_when_the_host_buffer_is_rewritten(size):
    # 64-byte aligned memory is what a CPU device would otherwise read in place.
    memory = np.zeros(2 * size + 64, np.float32)
    start = (-memory.ctypes.data % 64) // 4
    host = memory[start : start + 2 * size].reshape(2, size)
    host[:] = 1.0
    placed = put({"values": host}, batch_sharding(make_mesh(jax.devices()[:1])))
    host[:] = 2.0
    np.testing.assert_array_equal(placed["values"], np.ones((2, size)))


def test_put_keeps_types_shapes_and_placement():
    sharding = batch_sharding(make_mesh(jax.devices()[:1]))
    host = {
        "pixels": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "speed": np.ones(2, np.float32),
    }
    placed = put(host, sharding)
    for name, array in host.items():
        assert placed[name].dtype == array.dtype
        assert placed[name].sharding == sharding
        np.testing.assert_array_equal(placed[name], array)
    empty = put({"history": np.zeros((2, 0, 5), np.float32)}, sharding)
    assert empty["history"].shape == (2, 0, 5)
