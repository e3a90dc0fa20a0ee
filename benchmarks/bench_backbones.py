"""Backbones in float32 on a CPU, and what they are built of against XLA's own lowerings.

First what the machine can do at all (a matrix product), then one inference of each backbone with
folded normalisation at 270 x 480, then training steps, then single operations, values and
gradients, in turns with XLA's own. With ``--peers`` TensorFlow, PyTorch, ONNX Runtime and OpenVINO
take turns with ours, from an environment of their own (see ``peer_backbones``)::

    python -m benchmarks.bench_backbones --peers .peers/bin/python
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from benchmarks.backbones import NAMES, Peers, Subject, make_array, make_product, time_job
from benchmarks.harness import Row, Timing, duration_row, measure, write_results
from benchmarks.peer_backbones import FRAMEWORKS, Job

from charles.nets import lowerings
from charles.nets.lowerings import find_pads

SIDE = 1024
"""Of the matrices of the ceiling."""
INFERENCE = (1, 270, 480)
TRAINING = (8, 135, 240)
"""Batch, height and width."""
SECONDS = 3.0
ROUNDS = {"inference": 6, "training": 3}
IN_A_ROUND = {"inference": 3, "training": 1}
"""Times of one framework before it is the next one's turn."""


def time_of(fn: Callable[..., Any], *inputs: Any, seconds: float = SECONDS) -> Timing:
    """Time of a compiled call, to its result."""
    return measure(lambda: jax.block_until_ready(fn(*inputs)), seconds=seconds, warmup=2)


def backbone_rows(job: Job, ceiling: Subject, peers: Peers) -> list[Row]:
    """One job, ours and the peers' in turns; of the ceiling: what the arithmetic takes."""
    frameworks = ("pytorch",) if job.task == "training" else tuple(FRAMEWORKS)
    ours, share, timings = time_job(
        job, ceiling, peers, frameworks, rounds=ROUNDS[job.task], num=IN_A_ROUND[job.task]
    )
    name = f"{job.backbone} {job.task} {job.batch}×{job.height}×{job.width}"
    row = replace(duration_row(name, ours, **timings), share_of_ceiling=share)
    return [row, *(duration_row(f"{name}, {who}", timing) for who, timing in timings.items())]


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
    tasks = ("all", "inference", "training")
    text = "one alone goes into a file of its own, without single operations"
    parser.add_argument("--task", choices=tasks, default="all", help=text)
    given = parser.parse_args()
    python = given.peers
    ceiling = make_product(SIDE, "float32")
    rows = [duration_row(f"matrix product {SIDE}³", measure(ceiling.run, seconds=SECONDS))]
    with Peers(python, tuple(FRAMEWORKS)) as peers:
        for task, shape in (("inference", INFERENCE), ("training", TRAINING)):
            for name in NAMES if given.task in ("all", task) else ():
                rows += backbone_rows(Job(task, name, *shape), ceiling, peers)
    is_all = given.task == "all"
    rows += all_operation_rows() if is_all else []
    command = "python -m benchmarks.bench_backbones" + (
        " --peers .peers/bin/python" if python else ""
    )
    command += "" if is_all else f" --task {given.task}"
    write_results("backbones" if is_all else f"backbones_{given.task}", rows, command)


if __name__ == "__main__":
    main()
