"""Backbones at batch 1 in float32, and what they are built of against XLA's own lowerings.

First what the machine can do at all (a matrix product), then one inference of each backbone with
folded normalisation at 270 x 480, then single operations, values and gradients, in turns with XLA's
own. With ``--peers`` TensorFlow, PyTorch and ONNX Runtime take turns with ours, from an environment
of their own (see ``peer_backbones``)::

    python -m benchmarks.bench_backbones --peers .peers/bin/python
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.harness import Row, Timing, duration_row, measure, timing_of, write_results
from flax import nnx

from charles.nets import lowerings
from charles.nets.inception_resnet_v2 import InceptionResNetV2
from charles.nets.layers import fold_module
from charles.nets.lowerings import find_pads, heavy_options
from charles.nets.regnet import DESIGNS, RegNet
from charles.nets.xception import Xception

SIDE = 1024
"""Of the matrices of the ceiling."""
IMAGE = (1, 270, 480, 3)
SECONDS = 3.0
ROUNDS = 5
IN_A_ROUND = 4
"""Inferences of one framework before it is the next one's turn."""
FRAMEWORKS = ("tensorflow", "pytorch", "onnxruntime")
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


class Peers:
    """Other frameworks, each in a process of its own, timed on demand; a context manager.

    Args:
        python: The interpreter that has them; ``None`` for no peers.
    """

    def __init__(self, python: Path | None) -> None:
        self._processes: dict[str, subprocess.Popen[str]] = {}
        script = Path(__file__).with_name("peer_backbones.py")
        for framework in FRAMEWORKS if python is not None else ():
            self._processes[framework] = subprocess.Popen(
                [str(python), str(script), framework], text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.communicate()

    def time_of(self, framework: str, backbone: str, num: int) -> list[float]:
        """Seconds of ``num`` inferences; none where the framework has no such backbone."""
        process = self._processes.get(framework)
        if process is None or process.stdin is None or process.stdout is None:
            return []
        process.stdin.write(f"{backbone} {num}\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith("ANSWER "):
                answer = json.loads(line.removeprefix("ANSWER "))
                if isinstance(answer, list):
                    return answer
                print(f"{framework} has no {backbone}: {answer}")
                return []
        raise RuntimeError(f"The process of {framework} ended; run peer_backbones to see why.")


def backbone_rows(name: str, per_second: float, peers: Peers) -> list[Row]:
    """One inference, ours and the peers' in turns; of the ceiling: what the arithmetic takes."""
    make = BACKBONES[name]
    folded = nnx.eval_shape(lambda: fold_module(make(channels=IMAGE[-1], rngs=nnx.Rngs(0))))
    structure, state = nnx.split(folded)
    state = jax.tree.map(lambda leaf: make_array(*leaf.shape) * 0.05, state)
    image = make_array(*IMAGE)

    def run(state: nnx.State, image: jax.Array) -> jax.Array:
        return nnx.merge(structure, state)(image, is_training=False)

    compiled = jax.jit(run).lower(state, image).compile(compiler_options=heavy_options())
    jax.block_until_ready(compiled(state, image))
    durations: dict[str, list[float]] = {"ours": []}
    for _ in range(ROUNDS):
        for _ in range(IN_A_ROUND):
            started_s = time.perf_counter()
            jax.block_until_ready(compiled(state, image))
            durations["ours"].append(time.perf_counter() - started_s)
        for framework in FRAMEWORKS:
            taken = peers.time_of(framework, name, IN_A_ROUND)
            durations.setdefault(framework, []).extend(taken)
    timings = {who: timing_of(values) for who, values in durations.items() if values}
    ours = timings.pop("ours")
    work = float((compiled.cost_analysis() or {}).get("flops", 0.0))
    row = duration_row(f"{name} {IMAGE[1]}×{IMAGE[2]}", ours, **timings)
    row = replace(row, share_of_ceiling=work / per_second / ours.median_s)
    others = [duration_row(f"{name}, {who}", timing) for who, timing in timings.items()]
    return [row, *others]


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, help="the Python of an environment with the peers")
    python = parser.parse_args().peers
    row, per_second = ceiling()
    rows = [row]
    with Peers(python) as peers:
        for name in BACKBONES:
            rows += backbone_rows(name, per_second, peers)
    rows += all_operation_rows()
    peered = " --peers .peers/bin/python" if python else ""
    write_results("backbones", rows, f"python -m benchmarks.bench_backbones{peered}")


if __name__ == "__main__":
    main()
