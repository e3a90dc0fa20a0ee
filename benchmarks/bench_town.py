"""How fast Town draws and steps on one core, per weather.

Run it pinned to one core of an idle machine::

    taskset -c 0 python -m benchmarks.bench_town
"""

import time
from collections.abc import Iterator

import cv2
import numpy as np
from benchmarks.harness import (
    Row,
    Timing,
    duration_row,
    measure,
    memcpy_ceiling,
    rate_row,
    timing_of,
    write_results,
)

from charles.town.layout import WorldView
from charles.town.render import Camera, Renderer
from charles.town.world import World, WorldConfig

HEIGHT, WIDTH = 270, 480
MOODS = (("clear", 12.0), ("overcast", 12.0), ("rain", 12.0), ("fog", 12.0), ("clear", 0.0),
         ("rain", 0.0), ("fog", 0.0))  # fmt: skip
SEEDS = (1, 2, 3)
STEPS = 150
"""Instants of each seed: 5 s of driving with traffic and pedestrians."""


def drive(seed: int, weather: str, hour: float) -> Iterator[WorldView]:
    """Views of a drive by the NPC."""
    world = World(WorldConfig(seed=seed, weather=weather, time_of_day_h=hour))
    for _ in range(STEPS):
        world.step()
        yield world.view()


def time_render(
    renderer: Renderer, out: np.ndarray, mood: tuple[str, float], camera: Camera
) -> Timing:
    """Durations of ``render`` alone over all drives, the first second of each apart."""
    durations = []
    for seed in SEEDS:
        for i, view in enumerate(drive(seed, *mood)):
            start = time.perf_counter()
            renderer.render(view, out, camera)
            if i >= 30:
                durations.append(time.perf_counter() - start)
    return timing_of(durations)


def time_together(renderer: Renderer, out: np.ndarray, mood: tuple[str, float]) -> Timing:
    """Durations of step and render of one instant together."""
    durations = []
    for seed in SEEDS:
        world = World(WorldConfig(seed=seed, weather=mood[0], time_of_day_h=mood[1]))
        for i in range(STEPS):
            start = time.perf_counter()
            world.step()
            renderer.render(world.view(), out)
            if i >= 30:
                durations.append(time.perf_counter() - start)
    return timing_of(durations)


def main() -> None:
    """Measure, print and write ``results/town.json``."""
    cv2.setNumThreads(1)  # one core is what is measured
    out = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ceiling = memcpy_ceiling(out.nbytes)
    rows = [duration_row(f"memcpy of a {WIDTH}×{HEIGHT} frame", ceiling, ceiling=ceiling)]
    renderer = Renderer(HEIGHT, WIDTH)

    def rate(name: str, timing: Timing) -> Row:
        return rate_row(name, timing, unit="frames/s", ceiling=ceiling)

    for weather, hour in MOODS:
        timing = time_render(renderer, out, (weather, hour), "hood")
        rows.append(rate(f"render, hood, {weather}, {hour:g} h", timing))
    rows.append(rate("render, chase, clear, 12 h", time_render(renderer, out, MOODS[0], "chase")))
    world = World(WorldConfig(seed=SEEDS[0]))
    stepping = measure(world.step, seconds=1.0, warmup=30)
    rows.append(rate_row("World.step with NPC", stepping, unit="steps/s"))
    rows.append(rate("World.step and render, clear, 12 h", time_together(renderer, out, MOODS[0])))
    rows.append(rate("World.step and render, rain, 12 h", time_together(renderer, out, MOODS[2])))
    renderer.close()
    write_results("town", rows, "taskset -c 0 python -m benchmarks.bench_town")


if __name__ == "__main__":
    main()
