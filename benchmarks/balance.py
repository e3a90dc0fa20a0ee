"""How even each version of balancing leaves the outputs, on the labels of one and the same drive.

The town's own driver is recorded through a collector that keeps nothing, so no picture is drawn:
many towns, pushes on the wheel, traffic as the demonstration has it. Then every version chooses
from these labels.

Evenness is told as total variation: half the sum, over the bins, of how far the share of an
output's samples in a bin is from an even share. It is the share of all samples that would have to
lie in another bin: 0 is even, and it means the same whatever the number of bins. Counted are the
samples that an output is trained on: those of all buffers, each buffer with the same weight, as
batches draw; of version 2, those of the output's own buffer. Bins are those of the regression
outputs of the preset, for version 1 too, which is filled by the documented wider ones.

What it costs is told as pictures taken for each sample that was sent. Everything is in percent.

Run ``python -m benchmarks.balance``; it takes two minutes.
"""

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
from benchmarks.harness import Row, write_results

from charles import presets
from charles.collector import Collector
from charles.config import BalancingConfig, TrainConfig
from charles.data.balancing import Balancer, BalanceReport, make_balancer
from charles.data.exchange import Exchange
from charles.data.pool import Lane, PoolSpec
from charles.intake import sample_spec
from charles.io.games import make_game
from charles.outputs import Bins, OutputConfig, control_of
from charles.sample import DRIVING_CONTROLS

MINUTES = 45
"""Of the game's time."""

SEED = 0

VERSIONS = ("none", "v1", "v2", "v3", "v4")

SETTINGS = (("default", 600), ("town_live", 10), ("town_live", 100))
"""Presets whose outputs are tried, and patience: the preset's own, and one that waits longer."""

PEDAL_BINS = {"low": 0.0, "edges": (0.0, 0.2, 0.8, 1.0), "exact": (0.0, 1.0)}

JOINT_OUTPUTS = (
    OutputConfig(name="acceleration", **PEDAL_BINS),
    OutputConfig(name="braking", **PEDAL_BINS),
    OutputConfig(name="steering", edges=(-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0),
                 exact=(-1.0, 0.0, 1.0)),
)  # fmt: skip
"""The documented outputs and bins of version 1."""


@dataclass
class Recorder:
    """A balancer that wants nothing and remembers every label, float32 ``[A]``."""

    labels: list[np.ndarray] = field(default_factory=list)
    currents: list[np.ndarray] = field(default_factory=list)
    max_slots: int = 0
    unwanted: frozenset[int] = frozenset()

    def wants(self, label: np.ndarray, current: np.ndarray) -> None:
        """Remember a candidate."""
        self.labels.append(label.copy())
        self.currents.append(current.copy())

    def add(self, output: int, label: np.ndarray, current: np.ndarray, slot: int) -> list[int]:
        """Nothing is ever captured."""
        raise AssertionError("a recorder wants nothing")

    def take_completed(self) -> list[tuple[int, list[int]]]:
        """No set is ever finished."""
        return []

    def abandon(self) -> list[int]:
        """No slot is ever held."""
        return []

    def report(self) -> tuple[BalanceReport, ...]:
        """Nothing is balanced."""
        return ()


def record(minutes: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and current controls, float32 ``[N, A]`` each, of a drive of the town's driver."""
    config = presets.town_live()
    config = replace(config, data=replace(config.data, history_length=1,
                                          balancing=BalancingConfig(version="none")))  # fmt: skip
    pool = PoolSpec(num_slots=8, sample=sample_spec(config))
    recorder = Recorder()
    with (
        closing(Exchange(pool, max_collectors=1, slots_per_collector=2)) as exchange,
        closing(Lane(exchange.open_lane(1))) as lane,
        closing(make_game(config.game, config.frame, seed=seed)) as game,
    ):
        collector = Collector(game, config, lane, collector_id=1, seed=seed, stop=threading.Event())
        collector.balancer = recorder
        for _ in range(round(minutes * 60 * config.collect.rate_hz)):
            collector.step()
    return np.array(recorder.labels), np.array(recorder.currents)


@dataclass(frozen=True)
class Chosen:
    """What a balancer made of a drive."""

    buffers: list[np.ndarray]
    """Labels that were sent to each output's buffer, float32 ``[N, A]`` each."""
    captured: int
    """Pictures that were taken."""

    @property
    def sent(self) -> int:
        """Samples in all buffers."""
        return sum(len(labels) for labels in self.buffers)


def choose(balancer: Balancer, labels: np.ndarray, currents: np.ndarray, num: int) -> Chosen:
    """Let a balancer for ``num`` outputs choose from a drive, as a collector does."""
    slots: list[list[int]] = [[] for _ in range(num)]
    captured = 0
    for number, (label, current) in enumerate(zip(labels, currents, strict=True)):
        output = balancer.wants(label, current)
        if output is not None:
            captured += 1
            balancer.add(output, label, current, number)
        for finished, those in balancer.take_completed():
            slots[finished].extend(those)
    return Chosen([labels[each] for each in slots], captured)


def unevenness(buffers: Sequence[np.ndarray], output: OutputConfig) -> float:
    """Total variation between an output's samples and an even distribution over its bins, 0..1."""
    bins = Bins.of(output)
    shares = np.zeros(len(bins))
    for labels in buffers:
        values = control_of(labels, DRIVING_CONTROLS, output.name)
        shares += np.bincount(bins.index(values), minlength=len(bins)) / max(1, len(values))
    return float(abs(shares / len(buffers) - 1 / len(bins)).sum() / 2)


def rows_of(
    name: str, config: TrainConfig, patience: int, drive: tuple[np.ndarray, np.ndarray]
) -> list[Row]:
    """Every version with one preset's outputs."""
    rows = []
    for version in VERSIONS:
        outputs = JOINT_OUTPUTS if version == "v1" else config.outputs
        balancing = BalancingConfig(version=version, patience=patience)
        balancer = make_balancer(balancing, outputs, DRIVING_CONTROLS, seed=SEED)
        chosen = choose(balancer, *drive, len(outputs))
        figures = {"sent per candidate": chosen.sent / len(drive[0]),
                   "pictures per sample": chosen.captured / max(1, chosen.sent)}  # fmt: skip
        for number, output in enumerate(config.outputs):
            own = [chosen.buffers[number]] if version == "v2" else chosen.buffers
            figures[f"{output.name} in the wrong bin"] = unevenness(own, output)
        title = f"{name}, patience {patience}, {version}"
        rows += [Row(name=f"{title}: {what}", median=100 * figure, p95=100 * figure, unit="%")
                 for what, figure in figures.items()]  # fmt: skip
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as a table with a line for each setting and version."""
    heads = [row.name.partition(": ")[2] for row in rows[:4]]
    lines = [f"| outputs, version | {' | '.join(heads)} |", "|---|--:|--:|--:|--:|"]
    for start in range(0, len(rows), 4):
        title = rows[start].name.partition(":")[0]
        figures = " | ".join(f"{row.median:.1f} %" for row in rows[start : start + 4])
        lines.append(f"| {title} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    """Record, choose, compare."""
    drive = record(MINUTES, SEED)
    rows = [row for name, patience in SETTINGS
            for row in rows_of(name, presets.get(name), patience, drive)]  # fmt: skip
    print(f"{len(drive[0]):,} candidates\n\n{table(rows)}\n")
    write_results("balance", rows, "python -m benchmarks.balance")


if __name__ == "__main__":
    main()
