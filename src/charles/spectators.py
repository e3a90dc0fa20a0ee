"""The cameras that are not the network's, for whoever watches: pictures, and how evenly they came.

A game with several cameras shows them in turn: the network's at a deadline, the others evenly
between two of them. Here the others are fetched in the rest of a player's tick, so that they never
delay its pad. Where a tick leaves no time for one, that picture is dropped and counted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from charles.errors import require
from charles.io.abilities import ManyCameras
from charles.io.game import Game
from charles.timing import NS_PER_S, Cadence, CadenceReport, clock_ns, sleep_until

ASIDE_SHARE = 0.15
"""Last part of a period that is left alone, so that the next deadline is kept."""

_FORGET = 0.05
"""Share of an estimate that one new measurement makes up."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One picture for spectators. It is theirs: nobody writes into it again."""

    camera: str
    captured_ns: int
    """Monotonic clock."""
    picture: np.ndarray
    """RGB uint8 ``[H, W, 3]``."""
    state: str
    """``driving``, or ``unstuck`` while the car is being put elsewhere."""


class Spectators:
    """Shows a game's other cameras. :meth:`show` is for the player's thread; ``newest`` and
    :meth:`report` may be read from any.

    Args:
        game: A game with several cameras.
        rate_hz: Pictures per second of each camera.

    Raises:
        ConfigError: The game has no other camera.

    Attributes:
        newest: The newest picture of each camera so far; replaced, never changed.
        dropped: Pictures that there was no time for.
    """

    def __init__(self, game: Game, rate_hz: float) -> None:
        has_more = isinstance(game, ManyCameras) and len(game.cameras) > 1
        require(has_more, "cameras", "be 1 in a game that shows only one", 3)
        assert isinstance(game, ManyCameras)
        self.newest: dict[str, Shown] = {}
        self.dropped = 0
        self._game, self._shape = game, game.frame_shape
        self._others = game.cameras[1:]
        self._cadences = {camera: Cadence(rate_hz) for camera in self._others}
        self._period_ns = round(NS_PER_S / rate_hz)
        self._cost_ns = 0.0
        self._subscribers: list[Callable[[Shown], object]] = []

    def subscribe(self, subscriber: Callable[[Shown], object]) -> None:
        """Call ``subscriber`` with every picture, in the player's thread: it must be quick."""
        self._subscribers.append(subscriber)

    def show(self, deadline_ns: int, *, state: str) -> None:
        """Fetch what comes before the next deadline. Blocks, sleeping in between, until the last
        camera's turn is over, but not into the last part of the period.

        Args:
            deadline_ns: The tick's deadline, monotonic clock.
            state: What the player is doing.
        """
        give_up_ns = deadline_ns + round((1.0 - ASIDE_SHARE) * self._period_ns)
        num_cameras = 1 + len(self._others)
        for number, camera in enumerate(self._others, start=1):
            now_ns = sleep_until(deadline_ns + number * self._period_ns // num_cameras)
            if now_ns + self._cost_ns > give_up_ns:
                self.dropped += 1
                self._cost_ns *= 1.0 - _FORGET  # so that one slow picture is not the last
                continue
            self._fetch(camera, state)
            # One that was held up by others says little about the next.
            took_ns = min(clock_ns() - now_ns, 2.0 * self._cost_ns + NS_PER_S / 1000)
            self._cost_ns += _FORGET * (took_ns - self._cost_ns)

    def pause(self) -> None:
        """A wanted pause: the next period is not a late one."""
        for cadence in self._cadences.values():
            cadence.pause()

    def report(self) -> dict[str, CadenceReport]:
        """Cadence of each camera so far."""
        return {camera: cadence.report() for camera, cadence in self._cadences.items()}

    def _fetch(self, camera: str, state: str) -> None:
        picture = np.empty(self._shape, np.uint8)
        captured_ns = self._game.grab_camera(camera, picture)
        self._cadences[camera].add(captured_ns)
        before = self.newest.get(camera)
        if before is not None and before.captured_ns == captured_ns:
            return
        shown = Shown(camera=camera, captured_ns=captured_ns, picture=picture, state=state)
        self.newest = {**self.newest, camera: shown}
        for subscriber in self._subscribers:
            subscriber(shown)
