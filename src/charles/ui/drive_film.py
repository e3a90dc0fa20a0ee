"""Films of drivers on the same route at the same time, side by side: before and after training.

Each driver has a column: the camera behind the car, the hood camera (what the network sees), and a
strip with its name, speed, controls and how far it came.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from charles.config import TrainConfig
from charles.drivers import UNTRAINED_SEED, PolicyDriver
from charles.evaluate import newest_step
from charles.policy import Policy, Variables, load_variables
from charles.routes import RATE_HZ, Drive, Driver, Npc, Route, make_routes
from charles.town.render import Renderer
from charles.ui.film import Film

HEIGHT, WIDTH = 270, 480
"""Of each picture in a film, whatever size the network sees."""

STRIP_HEIGHT = 66
"""Rows of the strip below the pictures."""

FIRST_SEED = 200_000
"""Towns of films: neither trained on nor scored."""

NOON_H = 13.0

STILLS_S = (4.0, 12.0, 20.0)
"""Times at which single frames are kept."""

_INK, _DIM, _PAPER = (235, 235, 235), (150, 150, 150), (24, 26, 30)
_GO, _STOP, _STEER = (90, 200, 110), (225, 80, 70), (90, 160, 240)
_FONT = cv2.FONT_HERSHEY_DUPLEX


def film_drives(
    path: Path,
    drivers: dict[str, Variables | None],
    route: Route,
    *,
    policy: Policy,
    seconds: float,
    stills_s: Sequence[float] = STILLS_S,
) -> list[Path]:
    """Film drivers on one route, until all have ended or the time is up. Blocks.

    Args:
        path: The MP4.
        drivers: Parameters that drive, by caption, as :meth:`charles.policy.Policy.place` returns
            them; ``None`` for the NPC.
        route: Where.
        policy: The network; its run's config gives frame size and traffic.
        seconds: Longest film.
        stills_s: Times at which a PNG is written beside the film.

    Returns:
        The files written, the film first.
    """
    eyes, camera = Renderer(policy.spec.height, policy.spec.width), Renderer(HEIGHT, WIDTH)
    columns = [
        _Column(caption, _driver(variables, policy, eyes), route, policy.config, camera)
        for caption, variables in drivers.items()
    ]
    shape = (2 * HEIGHT + STRIP_HEIGHT, len(columns) * WIDTH)
    stills = {round(s * RATE_HZ): path.with_name(f"{path.stem}_{s:g}s.png") for s in stills_s}
    made = [path]
    with Film(path, height=shape[0], width=shape[1], fps=round(RATE_HZ)) as film:
        for instant in range(round(seconds * RATE_HZ)):
            frame = np.concatenate([column.step() for column in columns], axis=1)
            film.add(frame)
            if instant in stills:
                cv2.imwrite(str(stills[instant]), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
                made.append(stills[instant])
            if all(column.drive.ended for column in columns):
                break
    eyes.close()
    camera.close()
    return made


def _driver(variables: Variables | None, policy: Policy, renderer: Renderer) -> Driver:
    return Npc() if variables is None else PolicyDriver(policy, variables, renderer)


def film_before_after(
    config: TrainConfig, checkpoint_dir: Path, path: Path, *, seconds: float = 40.0
) -> list[Path]:
    """Film the network before training, the newest checkpoint and the NPC on one route.

    The route is the first of a town that is neither trained on nor scored, in the first of the
    run's weathers, as near to noon as the run's hours allow.

    Returns:
        The files written: the film, then stills.

    Raises:
        CheckpointError: There is no checkpoint.
    """
    step = newest_step(checkpoint_dir)
    first_h, last_h = config.game.hours
    route = replace(
        make_routes(1, first_seed=FIRST_SEED, game=config.game)[0],
        weather=config.game.weathers[0],
        time_of_day_h=min(max(NOON_H, first_h), last_h),
    )
    policy = Policy(config)
    drivers = {
        "before training": policy.untrained(UNTRAINED_SEED),
        f"after {step} steps": load_variables(policy, checkpoint_dir, step),
        "the NPC that taught it": None,
    }
    return film_drives(path, drivers, route, policy=policy, seconds=seconds)


class _Column:
    """One driver's part of the picture."""

    def __init__(
        self, caption: str, driver: Driver, route: Route, config: TrainConfig, renderer: Renderer
    ) -> None:
        unstuck = config.play.unstuck
        self.drive = Drive(caption, driver, route, game=config.game, unstuck=unstuck)
        self._caption = caption
        self._renderer = renderer
        self._picture = np.zeros((2 * HEIGHT + STRIP_HEIGHT, WIDTH, 3), np.uint8)

    def step(self) -> np.ndarray:
        """Draw the present instant and move to the next; a drive that has ended stands still."""
        if self.drive.ended:
            return self._picture
        view = self.drive.world.view()
        self._renderer.render(view, self._picture[:HEIGHT], camera="chase")
        self._renderer.render(view, self._picture[HEIGHT : 2 * HEIGHT])
        self.drive.step()
        _draw_strip(self._picture[2 * HEIGHT :], self._caption, self.drive)
        self._picture[:, -2:] = _PAPER  # a line between the columns
        if self.drive.ended:
            self._fade()
        return self._picture

    def _fade(self) -> None:
        """Show that the drive is over."""
        pictures = self._picture[: 2 * HEIGHT]
        grey = cv2.cvtColor(cv2.cvtColor(pictures, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        np.copyto(pictures, (grey * 0.6).astype(np.uint8))
        _write(pictures, self.drive.ended.replace("_", " "), (14, 34), scale=0.9)


def _draw_strip(strip: np.ndarray, caption: str, drive: Drive) -> None:
    """Name, completion, speed and controls below the pictures, into ``[66, W, 3]``."""
    strip[:] = _PAPER
    width = strip.shape[1]
    world = drive.world
    done = round((width - 28) * drive.completion)
    _write(strip, caption, (14, 24), scale=0.6)
    _write(strip, f"{world.speed_mps * 3.6:3.0f} km/h", (14, 54), scale=0.6)
    _write(strip, f"route {drive.completion:4.0%}", (width - 130, 24), scale=0.6)
    cv2.rectangle(strip, (14, 32), (width - 14, 34), (70, 70, 70), -1)
    cv2.rectangle(strip, (14, 32), (14 + done, 34), _INK, -1)
    pedal, steering = (float(value) for value in world.controls[:2])
    _bar(strip, "brake / gas", pedal, (130, 50), colours=(_STOP, _GO))
    _bar(strip, "steering", steering, (305, 50), colours=(_STEER, _STEER))


def _bar(
    strip: np.ndarray,
    name: str,
    value: float,
    corner: tuple[int, int],
    *,
    colours: tuple[tuple[int, int, int], tuple[int, int, int]],
) -> None:
    """A bar from its middle to ``value`` in [-1, 1], 70 pixels to either side."""
    x, y = corner
    middle = x + 80
    end = middle + round(70 * max(-1.0, min(1.0, value)))
    _write(strip, name, (x + 10, y - 4), scale=0.35, colour=_DIM)
    cv2.rectangle(strip, (middle - 70, y), (middle + 70, y + 8), (55, 58, 64), -1)
    cv2.rectangle(strip, (min(middle, end), y), (max(middle, end), y + 8), colours[value > 0], -1)
    cv2.line(strip, (middle, y - 1), (middle, y + 9), _INK, 1)


def _write(
    image: np.ndarray,
    text: str,
    corner: tuple[int, int],
    *,
    scale: float,
    colour: tuple[int, int, int] = _INK,
) -> None:
    cv2.putText(image, text, corner, _FONT, scale, colour, 1, cv2.LINE_AA)
