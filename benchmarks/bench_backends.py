"""What computes a player's predictions: JAX, ONNX Runtime, OpenVINO in float32, bfloat16 and int8.

InceptionResNetV2 at 270 x 480 (``model_0004_inceptionresnetv2_v1``), untrained, shown Town. First
what the machine can do at all (a matrix product) and how much arithmetic the network is; then all
backends predict in turns, from stored pixels to decoded outputs. Then what a swap takes, and how
far they are from JAX, and int8 from float32; with ``--run`` for a trained run of yours, too::

    python -m benchmarks.bench_backends --run runs/mine
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.backbones import make_product
from benchmarks.harness import Row, duration_row, measure, rate_row, timing_of, write_results

from charles.backends.exported import ExportedBackend
from charles.backends.quantised import inputs_of, read_folded
from charles.checkpoint import Checkpoints
from charles.config import TrainConfig
from charles.data.pixels import to_pixels
from charles.data.storage import Storage, StoredSample, read_some
from charles.intake import sample_spec
from charles.io.game import Scene
from charles.io.town import TownGame
from charles.observer import Inputs
from charles.options import BackendName
from charles.policy import Policy
from charles.presets import get
from charles.run import read_run

BACKENDS: tuple[BackendName, ...] = (
    "jax", "onnx", "openvino", "openvino_bfloat16", "openvino_int8"
)  # fmt: skip
MODEL = "model_0004_inceptionresnetv2_v1"
SIDE = 1024
SAMPLES = 48
BETWEEN_SAMPLES = 15
"""Instants from one sample to the next: half a second."""


def store_samples(config: TrainConfig) -> None:
    """Let Town's own driver drive, and keep what it sees now and then, as a collector would."""
    spec = sample_spec(config)
    storage = Storage(config.run_dir / "samples", spec, tuple(o.name for o in config.outputs))
    frame = np.zeros((spec.height, spec.width, 3), np.uint8)
    pixels = np.zeros(spec.pixels_shape, np.uint8)
    header = np.zeros(1, spec.header_dtype)
    game = TownGame(config.game, height=spec.height, width=spec.width, seed=1)
    with closing(storage), closing(game):
        game.reset(Scene(seed=1))
        for number in range(SAMPLES * BETWEEN_SAMPLES):
            telemetry = game.tick()
            if number % BETWEEN_SAMPLES == 0:
                game.grab(frame)
                to_pixels(frame, spec, pixels)
                header["speed_mps"], header["purpose"] = telemetry.speed_mps, telemetry.purpose
                storage.add(0, header[0], pixels)


def giga_operations(policy: Policy) -> float:
    """Arithmetic of one prediction: additions and multiplications of convolutions and products."""
    backend = policy._backend
    assert isinstance(backend, ExportedBackend)
    operations = 0.0
    for node in read_folded(backend.model(policy.initial(0))).get_ops():
        if node.get_type_name() not in ("Convolution", "MatMul"):
            continue
        kernel, out = node.input_value(1).get_shape(), node.output(0).get_shape()
        is_product = node.get_type_name() == "MatMul"
        per_value = int(np.prod(kernel)) // out[-1] if is_product else int(np.prod(kernel[1:]))
        operations += 2.0 * per_value * int(np.prod(out))
    return operations / 1e9


def swap_rows(name: str, policy: Policy, variables: object, times: int = 2) -> Iterator[Row]:
    """What taking in parameters takes; the first time apart, which is longer in int8."""
    for turn in range(times):
        began_s = time.perf_counter()
        policy.variables = policy.place(variables)  # type: ignore[arg-type]
        took_s = time.perf_counter() - began_s
        which = "first swap" if turn == 0 else "later swap"
        yield Row(name=f"{name}, {which}", median=took_s, p95=took_s, unit="s")


def compare(config: TrainConfig, name: str, seconds: float) -> list[Row]:
    """All backends in turns on one network."""
    rows, policies = [], {}
    for backend in BACKENDS:
        policies[backend] = policy = Policy(config, backend=backend)
        checkpoints = Checkpoints(config.run_dir / "checkpoints")
        is_trained = checkpoints.latest() is not None
        variables = (
            checkpoints.restore_variables(policy.abstract_variables)
            if is_trained
            else policy.initial(0)
        )
        rows += swap_rows(f"{name} {backend}", policy, variables)
    spec = sample_spec(config)
    samples: list[StoredSample] = read_some(config.run_dir / "samples", spec, 5)
    inputs = [inputs_of(sample) for sample in samples]
    durations_s: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    ends_s = time.perf_counter() + seconds
    for policy in policies.values():
        policy.predict(inputs[0])
    while time.perf_counter() < ends_s:
        for backend, policy in policies.items():
            for each in inputs:
                began_s = time.perf_counter()
                policy.predict(each)
                durations_s[backend].append(time.perf_counter() - began_s)
    timings = {backend: timing_of(each) for backend, each in durations_s.items()}
    base = timings["jax"].median_s
    for backend, timing in timings.items():
        row = rate_row(f"{name} {backend}", timing, unit="predictions/s")
        rows.append(replace(row, ratio_to={"jax": base / timing.median_s}))
    rows += _against_jax(name, policies, inputs)
    rows.append(_parity_row(name, policies))
    print(policies["openvino_int8"].note())
    if name == MODEL:
        rows.append(_constant(f"{name} arithmetic", giga_operations(policies["openvino"]), "GFLOP"))
    return rows


def _against_jax(name: str, policies: dict[str, Policy], inputs: list[Inputs]) -> Iterator[Row]:
    """How far each backend's outputs are from JAX' at most; they lie in [-1, 1]."""
    for backend, policy in policies.items():
        if backend == "jax":
            continue
        found = []
        for each in inputs:
            ours, theirs = policies["jax"].predict(each), policy.predict(each)
            found.append(max(abs(ours[key] - theirs[key]) for key in ours))
        yield Row(
            name=f"{name} {backend} against jax, largest difference of outputs",
            median=1e4 * float(np.median(found)),
            p95=1e4 * float(np.max(found)),
            unit="1e-4",
        )


def _parity_row(name: str, policies: dict[str, Policy]) -> Row:
    """How far int8 is from float32; where samples are few, two thirds of them set its scales."""
    exact, rounded = policies["openvino"], policies["openvino_int8"]
    samples = read_some(exact.config.run_dir / "samples", exact.spec, 3 * SAMPLES + 1)
    differences = []
    for sample in samples:
        inputs = inputs_of(sample)
        before, after = exact.predict(inputs), rounded.predict(inputs)
        differences.append(np.mean([abs(before[key] - after[key]) for key in before]))
    return Row(
        name=f"{name} int8 against float32, mean difference of outputs",
        median=1e4 * float(np.mean(differences)),
        p95=1e4 * float(np.percentile(differences, 95)),
        unit="1e-4",
    )


def _constant(name: str, value: float, unit: str) -> Row:
    return Row(name=name, median=value, p95=value, unit=unit)


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a trained run with samples, to compare, too")
    parser.add_argument("--seconds", type=float, default=40.0, help="time for each network")
    given = parser.parse_args()
    product = measure(make_product(SIDE, "float32").run, seconds=3.0)
    rows = [duration_row(f"matrix product {SIDE}³", product)]
    rows.append(_constant("of it", 2 * SIDE**3 / product.median_s / 1e9, "GFLOP/s"))
    with tempfile.TemporaryDirectory() as directory:
        config = replace(get(MODEL), run_dir=Path(directory) / "run")
        store_samples(config)
        rows += compare(config, MODEL, given.seconds)
    if given.run is not None:
        rows += compare(read_run(given.run), "trained run", given.seconds / 4)
    run = " --run runs/mine" if given.run else ""
    write_results("backends", rows, f"python -m benchmarks.bench_backends{run}")


if __name__ == "__main__":
    main()
