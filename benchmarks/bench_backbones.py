"""Backbones at batch 1 in float32, and what they are built of against XLA's own lowerings.

First what the machine can do at all (a matrix product), then one inference of each backbone with
folded normalisation at 270 x 480, then single operations, values and gradients, in turns with XLA's
own::

    JAX_PLATFORMS=cpu python -m benchmarks.bench_backbones
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.harness import Row, Timing, duration_row, measure, write_results
from flax import nnx

from charles.nets import lowerings
from charles.nets.inception_resnet_v2 import InceptionResNetV2
from charles.nets.layers import fold_module
from charles.nets.lowerings import find_pads
from charles.nets.regnet import DESIGNS, RegNet
from charles.nets.xception import Xception

SIDE = 1024
"""Of the matrices of the ceiling."""
IMAGE = (1, 270, 480, 3)
SECONDS = 3.0
BACKBONES = {
    "Xception": Xception,
    "InceptionResNetV2": InceptionResNetV2,
    "RegNetX-400MF": partial(RegNet, design=DESIGNS["regnetx_004"]),
    "RegNetY-400MF": partial(RegNet, design=DESIGNS["regnety_004"]),
}


def make_array(*shape: int) -> jax.Array:
    """Unit normal values."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def time_of(fn: Callable[..., Any], *inputs: Any, seconds: float = SECONDS) -> Timing:
    """Time of a compiled call, to its result."""
    return measure(lambda: jax.block_until_ready(fn(*inputs)), seconds=seconds, warmup=2)


def ceiling() -> tuple[Row, float]:
    """A large matrix product, and how many operations a second that makes."""
    matrix = make_array(SIDE, SIDE)
    timing = time_of(jax.jit(jnp.matmul), matrix, matrix)
    return duration_row(f"matrix product {SIDE}³", timing), 2 * SIDE**3 / timing.median_s


def backbone_row(name: str, per_second: float) -> Row:
    """One inference; of the ceiling: the time that the arithmetic alone would take."""
    make = BACKBONES[name]
    folded = nnx.eval_shape(lambda: fold_module(make(channels=IMAGE[-1], rngs=nnx.Rngs(0))))
    structure, state = nnx.split(folded)
    state = jax.tree.map(lambda leaf: make_array(*leaf.shape) * 0.05, state)
    image = make_array(*IMAGE)

    def run(state: nnx.State, image: jax.Array) -> jax.Array:
        return nnx.merge(structure, state)(image, is_training=False)

    compiled = jax.jit(run).lower(state, image).compile()
    timing = time_of(compiled, state, image, seconds=3 * SECONDS)
    work = float((compiled.cost_analysis() or {}).get("flops", 0.0))
    row = duration_row(f"{name} {IMAGE[1]}×{IMAGE[2]}", timing)
    return replace(row, share_of_ceiling=work / per_second / timing.median_s)


def operation_rows(
    name: str, ours: Callable[..., jax.Array], xlas: Callable[..., jax.Array], *inputs: jax.Array
) -> list[Row]:
    """Values, then values and gradients by all inputs, each against XLA's own."""
    places = tuple(range(len(inputs)))

    def differentiate(fn: Callable[..., jax.Array]) -> Callable[..., Any]:
        return jax.jit(jax.grad(lambda *inputs: jnp.sum(jnp.sin(fn(*inputs))), places))

    rows = []
    for title, make in ((name, jax.jit), (f"{name}, gradients", differentiate)):
        timings = [time_of(make(fn), *inputs, seconds=1.0) for fn in (ours, xlas)]
        rows.append(duration_row(title, timings[0], xla=timings[1]))
    return rows


def all_operation_rows() -> list[Row]:
    """One operation of each kind, of the sizes that the backbones have."""
    pads = find_pads((17, 30), (3, 3), 1, "SAME")
    x, kernel = make_array(1, 17, 30, 728), make_array(3, 3, 728, 1)
    rows = operation_rows(
        "depthwise 3×3, 17×30×728",
        lambda x, kernel: lowerings.convolve_by_shifts(x, kernel, pads),
        lambda x, kernel: lowerings.convolve_by_xla(x, kernel.transpose(0, 1, 3, 2), 1, pads, 728),
        x,
        kernel,
    )
    rows += operation_rows(
        "10 groups 3×3, 17×30×160",
        lambda x, kernel: lowerings.convolve_in_parts(x, kernel, 1, pads, 10),
        lambda x, kernel: lowerings.convolve_by_xla(x, kernel, 1, pads, 10),
        x[..., :160],
        make_array(3, 3, 16, 160),
    )
    valid = ((0, 0), (0, 0))
    rows += operation_rows(
        "3×3 stride 2, 31×57×320 to 384",
        lambda x, kernel: lowerings.convolve_densely(x, kernel, 2, valid),
        lambda x, kernel: lowerings.convolve_by_xla(x, kernel, 2, valid),
        make_array(1, 31, 57, 320),
        make_array(3, 3, 320, 384),
    )
    rows += operation_rows(
        "maxima 3×3 stride 2, 33×60×728",
        lambda x: lowerings.max_pool_by_axis(x, 3, 2, pads),
        lambda x: lowerings.max_pool_by_xla(x, 3, 2, pads),
        make_array(1, 33, 60, 728),
    )
    return rows


def main() -> None:
    """Measure everything and write the results."""
    row, per_second = ceiling()
    rows = [row, *(backbone_row(name, per_second) for name in BACKBONES), *all_operation_rows()]
    write_results("backbones", rows, "JAX_PLATFORMS=cpu python -m benchmarks.bench_backbones")


if __name__ == "__main__":
    main()
