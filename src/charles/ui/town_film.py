"""A film of the built-in game with its own driver at the wheel: ``charles-town --show``."""

from pathlib import Path

import numpy as np

from charles.options import TownOptions
from charles.town.physics import STEP_S
from charles.town.render import Renderer
from charles.town.world import World, WorldConfig
from charles.ui.film import Film

HEIGHT, WIDTH = 360, 640
"""Of each of the two pictures."""


def film_town(options: TownOptions, path: Path) -> None:
    """Film a drive: from behind the car above, and from its hood, which is what a network sees.

    Blocks for some seconds.

    Raises:
        StorageError: The film cannot be written.
    """
    config = WorldConfig(
        seed=options.seed, weather=options.weather, time_of_day_h=options.time_of_day_h
    )
    world = World(config)
    renderer = Renderer(HEIGHT, WIDTH)
    frame = np.empty((2 * HEIGHT, WIDTH, 3), np.uint8)
    try:
        with Film(path, height=2 * HEIGHT, width=WIDTH, fps=round(1 / STEP_S)) as film:
            for _ in range(round(options.seconds / STEP_S)):
                world.step()
                view = world.view()
                renderer.render(view, frame[:HEIGHT], "chase")
                renderer.render(view, frame[HEIGHT:], "hood")
                film.add(frame)
    finally:
        renderer.close()
    print(path)
