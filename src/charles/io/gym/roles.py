"""What an environment of Gymnasium needs besides itself to be a game: roles that others can fill.

Both are handed the environment at every call and keep nothing of it between two, but for what they
work out in ``start``.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from charles.io.game import Progress


@runtime_checkable
class Expert(Protocol):
    """Who is learned from. Used from one thread.

    Example:
        A class of your own goes to the collector by a game maker, as
        ``examples/plug_in_a_game.py`` shows: ``collect(ServerConfig(), make_game)`` with
        ``GymnasiumGame(..., expert=MyExpert())``.
    """

    is_advising: bool
    """Whether it can say what is right also where somebody else drove to."""

    def start(self, env: Any) -> None:
        """A new episode of ``env``, or the car was put elsewhere."""
        ...

    def advise(self, env: Any) -> np.ndarray | None:
        """Controls for the environment's present state, float32 ``[A]`` in [-1, 1].

        Must not change ``env``. ``None`` while it cannot tell, as a person who let go of the pad.
        """
        ...

    def close(self) -> None:
        """Release everything. May be called twice."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a world tells about an environment's present state."""

    speed_mps: float | None = None
    """Speed over ground; ``None`` where there is no such thing."""
    purpose: tuple[float, float] = (0.0, 0.0)
    """Direction (radians, positive right) and distance (m) of the target."""
    location: tuple[float, float, float] = (0.0, 0.0, 0.0)
    is_off_road: bool = False
    progress: Progress = field(default_factory=Progress)
    """Of the environment's task, where it has one."""


class World(Protocol):
    """What is known about one environment beyond Gymnasium's interface. Used from one thread."""

    goes_on: bool
    """Whether the environment may be stepped on after it ended its episode."""

    def start(self, env: Any, observation: Any) -> None:
        """The environment was just reset, and observed this."""
        ...

    def sight(self, env: Any) -> Sight:
        """What is to be told about the present state."""
        ...

    def step(self, env: Any, action: np.ndarray) -> bool:
        """One step of the environment, drawing no picture if it can be helped.

        Returns:
            Whether the environment ended its episode.
        """
        ...

    def picture(self, env: Any, camera: str) -> np.ndarray | None:
        """The present state's picture, RGB uint8 ``[h, w, 3]``, by ``render`` or ``observation``.

        ``None`` where the environment has none of that kind.
        """
        ...

    def put(self, env: Any, place: tuple[float, float] | None, rng: np.random.Generator) -> bool:
        """Put the car near ``place``, or anywhere; ``False`` where only a reset can do that."""
        ...


class PlainWorld:
    """An environment of which nothing more is known: it is stepped, and reset at its end."""

    goes_on = False

    def __init__(self) -> None:
        self._observation: Any = None

    def start(self, env: Any, observation: Any) -> None:
        """See :class:`World`."""
        self._observation = observation

    def sight(self, env: Any) -> Sight:
        """See :class:`World`."""
        return Sight()

    def step(self, env: Any, action: np.ndarray) -> bool:
        """See :class:`World`."""
        self._observation, _, is_terminated, is_truncated, _ = env.step(action)
        return bool(is_terminated or is_truncated)

    def picture(self, env: Any, camera: str) -> np.ndarray | None:
        """See :class:`World`."""
        seen = env.render() if camera == "render" else self._observation
        is_picture = isinstance(seen, np.ndarray) and seen.dtype == np.uint8
        return seen if is_picture and seen.ndim == 3 and seen.shape[-1] == 3 else None

    def put(self, env: Any, place: tuple[float, float] | None, rng: np.random.Generator) -> bool:
        """See :class:`World`."""
        return False
