r"""Training steps and predictions of the large backbones on an accelerator, in bfloat16.

First what the machine can do at all (a matrix product in bfloat16), then samples per second of each
backbone at 270 x 480, and the share of that product's rate. Where PyTorch and timm are importable
by ``--peers`` (this interpreter unless said otherwise), their models take turns with ours:
channels-last, bfloat16, compiled. Last, what a player waits for: one picture in host memory to
decoded controls of the documented models, one prediction after the other::

    python -m benchmarks.bench_gpu
    python -m benchmarks.bench_gpu --peers .peers/bin/python
    JAX_PLATFORMS=cpu python -m benchmarks.bench_gpu --backbones Xception \
        --batch-sizes 2 --height 76 --width 80 --trial
"""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

# The peer needs memory beside ours. Read when JAX first touches the device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np
from benchmarks.backbones import Peers, Subject, make_product, time_job
from benchmarks.harness import (
    Row,
    Timing,
    duration_row,
    format_table,
    machine_info,
    measure,
    rate_row,
    write_results,
)
from benchmarks.peer_backbones import Job

from charles.observer import blank_inputs
from charles.policy import Policy
from charles.presets import get

SIDE = 8192
"""Of the matrices of the ceiling."""
NAMES = ("InceptionResNetV2", "Xception")
MODELS = {
    "InceptionResNetV2": "model_0004_inceptionresnetv2_v1",
    "Xception": "model_0003_xception_v1",
}
"""Documented models that players drive with."""
ROUNDS, IN_A_ROUND = 5, 4
PREDICTING_S = 10.0


def has_pytorch(python: Path) -> bool:
    """Whether an interpreter can import PyTorch and timm."""
    return subprocess.run([python, "-c", "import timm, torch"], capture_output=True).returncode == 0


def per_sample(timing: Timing, batch: int) -> Timing:
    """What one sample of a batch takes."""
    names = ("median_s", "p95_s", "p99_s", "max_s")
    return replace(timing, **{name: getattr(timing, name) / batch for name in names})


def training_rows(job: Job, ceiling: Subject, peers: Peers) -> list[Row]:
    """Samples per second, ours and PyTorch's; of the ceiling: what the arithmetic takes."""
    ours, share, timings = time_job(
        job, ceiling, peers, ("pytorch",), rounds=ROUNDS, num=IN_A_ROUND
    )
    name = f"{job.backbone} {job.batch}×{job.height}×{job.width} {job.dtype}"
    row = replace(
        rate_row(name, per_sample(ours, job.batch), unit="samples/s"),
        share_of_ceiling=share,
        ratio_to={who: timing.median_s / ours.median_s for who, timing in timings.items()} or None,
    )
    others = [
        rate_row(f"{name}, {who}", per_sample(timing, job.batch), unit="samples/s")
        for who, timing in timings.items()
    ]
    return [row, *others]


def prediction_rows(backbone: str, height: int, width: int) -> list[Row]:
    """Predictions one after the other, from pixels on the host to controls."""
    config = get(MODELS[backbone])
    config = replace(
        config,
        precision="bfloat16",
        frame=replace(config.frame, height=height, width=width),
        network=replace(config.network, input_height=height, input_width=width),
    )
    policy = Policy(config)
    policy.variables = policy.untrained(0)
    inputs = blank_inputs(policy.spec)
    rng = np.random.default_rng(0)
    inputs["pixels"][:] = rng.integers(0, 256, inputs["pixels"].shape, dtype=np.uint8)
    timing = measure(lambda: policy.predict(inputs), seconds=PREDICTING_S, warmup=3)
    name = f"{MODELS[backbone]} 1×{height}×{width} bfloat16, one prediction"
    took = replace(duration_row(f"{name} takes", timing), p99=timing.p99_s * 1e6,
                   worst=timing.max_s * 1e6)  # fmt: skip
    return [rate_row(name, timing, unit="predictions/s"), took]


def read_arguments() -> argparse.Namespace:
    """What is asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=Path(sys.executable))
    parser.add_argument("--backbones", nargs="+", default=NAMES)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--height", type=int, default=270)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--trial", action="store_true", help="try it out: write nothing")
    return parser.parse_args()


def main() -> None:
    """Measure everything and write the results."""
    asked = read_arguments()
    side = 512 if asked.trial else SIDE
    ceiling = make_product(side, "bfloat16")
    rows = [duration_row(f"matrix product {side}³, bfloat16", measure(ceiling.run))]
    python = asked.peers if has_pytorch(asked.peers) else None
    with Peers(python, ("pytorch",)) as peers:
        for name in asked.backbones:
            for batch in asked.batch_sizes:
                job = Job("training", name, batch, asked.height, asked.width, "bfloat16", True)
                rows += training_rows(job, ceiling, peers)
                print(format_table(rows[1:]), flush=True)
    for name in [name for name in asked.backbones if name in MODELS]:
        rows += prediction_rows(name, asked.height, asked.width)
    print(format_table(rows[1:]), flush=True)
    device = jax.devices()[0].device_kind
    if asked.trial:
        print(device, machine_info())
    else:
        write_results("gpu", rows, f"python -m benchmarks.bench_gpu  # {device}")


if __name__ == "__main__":
    main()
