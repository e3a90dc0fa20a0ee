"""Our backbones as calls to be timed, and other frameworks that take turns with them.

What ``bench_backbones`` (a CPU) and ``bench_gpu`` share.
"""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmarks.harness import Timing, timing_of
from benchmarks.peer_backbones import LEARNING_RATE, MOMENTUM, Job, time_each
from flax import nnx

from charles.nets import backbones
from charles.nets.layers import fold_module
from charles.nets.lowerings import heavy_options

NAMES = {
    "Xception": "xception",
    "InceptionResNetV2": "inceptionresnetv2",
    "RegNetX-400MF": "regnetx_004",
    "RegNetY-400MF": "regnety_004",
}
"""Ours by the names that they have in the tables."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Ours, ready to be timed."""

    run: Callable[[], object]
    """Does the job once, to its result."""
    work: float
    """Operations of one time, as the compiler counts them."""


def make_array(*shape: int) -> jax.Array:
    """Unit normal values, float32."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def make_subject(job: Job) -> Subject:
    """What the job asks for, compiled and warmed up."""
    return (_make_training if job.task == "training" else _make_inference)(job)


def _maker_of(job: Job) -> Callable[..., Any]:
    return backbones.BACKBONES[NAMES[job.backbone]].make


def _make_inference(job: Job) -> Subject:
    """The feature maps with folded normalisation and random parameters."""
    make = _maker_of(job)
    folded = nnx.eval_shape(lambda: fold_module(make(channels=3, rngs=nnx.Rngs(0))))
    structure, state = nnx.split(folded)
    state = jax.tree.map(lambda leaf: make_array(*leaf.shape) * 0.05, state)
    image = make_array(job.batch, job.height, job.width, 3).astype(job.dtype)

    def infer(state: nnx.State, image: jax.Array) -> jax.Array:
        return nnx.merge(structure, state)(image, is_training=False)

    compiled = jax.jit(infer).lower(state, image).compile(compiler_options=heavy_options())
    jax.block_until_ready(compiled(state, image))
    return Subject(
        run=lambda: jax.block_until_ready(compiled(state, image)), work=_count_work(compiled)
    )


def _make_training(job: Job) -> Subject:
    """The mean square of the features, its gradient and an update with momentum."""
    module = _maker_of(job)(channels=3, rngs=nnx.Rngs(0))
    structure, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    image = make_array(job.batch, job.height, job.width, 3).astype(job.dtype)
    state = (params, stats, optimizer.init(params))

    def find_loss(
        params: nnx.State, stats: nnx.State, image: jax.Array
    ) -> tuple[jax.Array, nnx.State]:
        # New variables for this trace: the module changes its statistics in place.
        module = nnx.merge(structure, *jax.tree.map(lambda leaf: leaf, (params, stats)))
        features = module(image, is_training=True).astype(jnp.float32)
        return jnp.mean(jnp.square(features)), nnx.state(module, nnx.BatchStat)

    def step(state: Any, image: jax.Array) -> tuple[Any, jax.Array]:
        params, stats, moments = state
        find = jax.value_and_grad(find_loss, has_aux=True)
        (loss, stats), gradients = find(params, stats, image)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(params, updates), stats, moments), loss

    compiled = jax.jit(step, donate_argnums=0).lower(state, image).compile()
    work = _count_work(compiled)

    def run() -> object:
        nonlocal state
        state, loss = compiled(state, image)
        return float(loss)

    run()
    return Subject(run=run, work=work)


def _count_work(compiled: Any) -> float:
    return float((compiled.cost_analysis() or {}).get("flops", 0.0))


class Peers:
    """Other frameworks, each in a process of its own, timed on demand; a context manager.

    Args:
        python: The interpreter that has them; ``None`` for no peers.
        frameworks: Which of :mod:`benchmarks.peer_backbones`.
    """

    def __init__(self, python: Path | None, frameworks: Sequence[str]) -> None:
        self._processes: dict[str, subprocess.Popen[str]] = {}
        script = Path(__file__).with_name("peer_backbones.py")
        for framework in frameworks if python is not None else ():
            self._processes[framework] = subprocess.Popen(
                [str(python), str(script), framework], text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.communicate()

    def time_of(self, framework: str, job: Job, num: int) -> list[float]:
        """Seconds of ``num`` times; none where the framework cannot do the job."""
        process = self._processes.get(framework)
        if process is None or process.stdin is None or process.stdout is None:
            return []
        process.stdin.write(json.dumps({**asdict(job), "num": num}) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith("ANSWER "):
                answer = json.loads(line.removeprefix("ANSWER "))
                if isinstance(answer, list):
                    return answer
                print(f"{framework} cannot do {job}: {answer}")
                return []
        raise RuntimeError(f"The process of {framework} ended; run peer_backbones to see why.")


def take_turns(
    runs: Mapping[str, Callable[[int], list[float]]], *, rounds: int, num: int
) -> dict[str, Timing]:
    """Each of several ``num`` times in each round, in an order drawn anew for each round.

    A fixed order would always give the same one the threads and caches that another left behind.

    Args:
        runs: By name, ``run(num)`` gives the seconds of ``num`` times; none if it cannot.
        rounds: Turns of each.
        num: Times in a turn.

    Returns:
        By name, in the order given, of those that can.
    """
    durations = {name: list[float]() for name, run in runs.items() if run(1)}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(durations)):
            durations[str(name)].extend(runs[str(name)](num))
    return {name: timing_of(values) for name, values in durations.items()}


def time_job(
    job: Job, ceiling: Subject, peers: Peers, frameworks: Sequence[str], *, rounds: int, num: int
) -> tuple[Timing, float, dict[str, Timing]]:
    """Ours, the ceiling and the peers that can do the job, in turns.

    Returns:
        Ours, the share of the ceiling's rate that the arithmetic is done at, and the peers'.
    """
    subject = make_subject(job)
    runs = {"ours": partial(time_each, subject.run), "ceiling": partial(time_each, ceiling.run)}
    runs |= {who: partial(peers.time_of, who, job) for who in frameworks}
    timings = take_turns(runs, rounds=rounds, num=num)
    ours, limit = timings.pop("ours"), timings.pop("ceiling")
    return ours, (subject.work / ours.median_s) / (ceiling.work / limit.median_s), timings


def make_product(side: int, dtype: str) -> Subject:
    """A product of two square matrices: what the machine can do at all."""
    matrix = make_array(side, side).astype(dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(matrix, matrix))
    return Subject(run=lambda: jax.block_until_ready(product(matrix, matrix)), work=2 * side**3)
