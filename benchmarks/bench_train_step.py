"""The training step of the compact driver, forward alone, and one prediction; all on the CPU.

First what the machine can do at all (a matrix product), then the step on frames of full size, from
stored pixels to updated parameters. Kernel gradients are shown against XLA's own way as a peer.

Run it on one core, so that nobody gets two and nothing moves::

    JAX_PLATFORMS=cpu taskset -c 1 python -m benchmarks.bench_train_step
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.harness import (
    Row,
    Timing,
    duration_row,
    measure,
    memcpy_ceiling,
    rate_row,
    write_results,
)

from charles.config import TrainConfig
from charles.data.device import put
from charles.nets.blocks import chunked_kernel_gradient, convolve_by_xla
from charles.nets.driver import make_network
from charles.optim import make_optimizer
from charles.outputs import make_output
from charles.sample import SampleSpec
from charles.state import make_state
from charles.train_step import batch_sharding, make_mesh, make_predict, make_train_step

SIDE = 1024
"""Of the matrices of the ceiling."""
BATCH_SIZES = (32, 64, 128)
SECONDS = 3.0
WARMUP = 2
KERNELS = ((16, 40, 48, 64, 2), (8, 20, 64, 96, 2), (8, 20, 64, 64, 1))
"""Height, width, channels, features and stride of the kernel gradients that are compared."""

CONFIG = TrainConfig()
SAMPLE = SampleSpec()
OUTPUTS = tuple(make_output(output) for output in CONFIG.outputs)
NETWORK = make_network(CONFIG.network, SAMPLE, OUTPUTS)


def time_of(fn: Callable[[], Any], *, warmup: int = WARMUP, seconds: float = SECONDS) -> Timing:
    """Time of a call, from the call to the result."""
    return measure(lambda: jax.block_until_ready(fn()), seconds=seconds, warmup=warmup)


def make_batch(size: int) -> dict[str, np.ndarray]:
    """Random samples of the default format."""
    rng = np.random.default_rng(0)
    history = (size, SAMPLE.history_length, SAMPLE.history_features)
    return {
        "pixels": rng.integers(0, 255, (size, *SAMPLE.pixels_shape), np.uint8),
        "speed": rng.uniform(0, 10, size).astype(np.float32),
        "purpose": rng.uniform(-1, 1, (size, 2)).astype(np.float32),
        "history": np.zeros(history, np.float32),
        "label": rng.uniform(-1, 1, (size, len(SAMPLE.controls))).astype(np.float32),
    }


def ceiling_rows() -> list[Row]:
    """A large matrix product: what the convolutions could reach at best."""
    matrix = jnp.ones((SIDE, SIDE))
    timing = time_of(jax.jit(lambda: matrix @ matrix), seconds=1.0)
    work = 2e-9 * SIDE**3
    product = Row(
        name=f"matrix product {SIDE}³",
        median=work / timing.median_s,
        p95=work / timing.p95_s,
        unit="GFLOP/s",
        share_of_ceiling=1.0,
    )
    copy = memcpy_ceiling(SAMPLE.pixels_bytes, seconds=1.0)
    return [product, duration_row("memcpy of one frame", copy)]


def step_rows(size: int) -> list[Row]:
    """Samples per second of the whole step, of its forward half, and of the copy to the device."""
    mesh = make_mesh()
    optimizer = make_optimizer(CONFIG.optimizer)
    state = make_state(NETWORK, optimizer, seed=0)
    step = make_train_step(
        NETWORK, OUTPUTS, optimizer, CONFIG.augment, control_names=SAMPLE.controls, mesh=mesh
    )
    host = make_batch(size)
    batch = put(host, batch_sharding(mesh))

    def train() -> Any:
        nonlocal state
        state, metrics = step(state, batch)
        return state, metrics

    trained = time_of(train)
    variables = state.variables
    forward = jax.jit(lambda batch: NETWORK.apply(variables, batch, is_training=True)[0])
    timings = {
        "training step": trained,
        "forward only": time_of(lambda: forward(batch)),
        "prepare only": time_of(lambda: prepare(batch)),
        "put on device": time_of(lambda: put(host, batch_sharding(mesh))),
    }
    return [samples_row(f"{name}, batch {size}", timing, size) for name, timing in timings.items()]


prepare = jax.jit(NETWORK.prepare)


def samples_row(name: str, timing: Timing, size: int) -> Row:
    """A row of samples per second."""
    row = rate_row(name, timing, unit="samples/s")
    return Row(name=name, median=row.median * size, p95=row.p95 * size, unit=row.unit)


def prediction_row() -> Row:
    """One frame, from stored pixels in host memory to decoded values, as a player does it."""
    predict = make_predict(NETWORK, OUTPUTS, control_names=SAMPLE.controls)
    variables = NETWORK.init(0)
    inputs = {name: array for name, array in make_batch(1).items() if name != "label"}
    timing = time_of(lambda: predict(variables, inputs), warmup=20)
    return duration_row("prediction, batch 1", timing)


def kernel_row(height: int, width: int, channels: int, features: int, stride: int) -> Row:
    """Our kernel gradient, with XLA's as its peer."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, height, width, channels)), jnp.float32)
    kernel = jnp.zeros((3, 3, channels, features))

    def by_xla(x: jax.Array, gradient: jax.Array) -> jax.Array:
        _, pull = jax.vjp(lambda kernel: convolve_by_xla(x, kernel, stride), kernel)
        return pull(gradient)[0]

    gradient = jnp.ones((64, -(-height // stride), -(-width // stride), features))
    ours = jax.jit(lambda x, gradient: chunked_kernel_gradient(x, gradient, 3, stride))
    plain = jax.jit(by_xla)
    shape = f"{height}x{width}, {channels} to {features}, stride {stride}"
    peer = time_of(lambda: plain(x, gradient), seconds=1.0)
    timing = time_of(lambda: ours(x, gradient), seconds=1.0)
    return duration_row(f"kernel gradient {shape}, batch 64", timing, XLA=peer)


def main() -> None:
    """Measure and write ``results/train_step.json``."""
    rows = ceiling_rows()
    for size in BATCH_SIZES:
        rows += step_rows(size)
    rows.append(prediction_row())
    rows += [kernel_row(*shape) for shape in KERNELS]
    count = sum(leaf.size for leaf in jax.tree.leaves(NETWORK.init(0)))
    rows.append(Row(name="parameters", median=count, p95=count, unit="parameters"))
    command = "JAX_PLATFORMS=cpu taskset -c 1 python -m benchmarks.bench_train_step"
    write_results("train_step", rows, command)


if __name__ == "__main__":
    main()
