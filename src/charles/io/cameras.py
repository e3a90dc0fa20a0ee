"""Which camera a picture is of, where a game shows several cameras in turn.

The game says nothing: pictures of cameras A, B and C come as A B C A B C. A picture resembles the
one before *of its own camera* far more than those of the others, so which is whose is seen from the
pictures alone. The order is taken to be right until a picture clearly resembles another camera's:
then pictures were dropped in between, and the order is taken up again there and then.

Resemblance is measured on tiny versions of the pictures, to the newest picture of a camera and to
how it looked lately on average. The latter outlasts a cut: the bonnet stays where it is.
"""

import cv2
import numpy as np

from charles.errors import ConfigError, require

SIGNATURE = (24, 16)
"""Width and height of the tiny version."""

CLEAR = 0.6
"""A picture clearly is of another camera if it is nearer to it than this share of how near it is to
the one whose turn it is."""

SAME = 0.03
"""Mean difference, in deviations of the tiny picture, below which two are the same: nothing moves.
Then the order decides."""

FLAT = 2.5
"""Deviation in grey levels below which a picture shows nothing, as at the end of a fade: the order
decides, and nothing is learned from it."""

RUNNING = 4
"""Doubtful pictures running that all say the same before they are believed."""

_FORGET = 0.02
"""Share that one picture has in the average look of its camera."""


class Deinterleaver:
    """Tells pictures apart by camera. Use from one thread.

    Cameras are numbered in the order in which they come, from an arbitrary one on; see
    :meth:`looks_like`.

    Args:
        num_cameras: How many take turns, 2 or more.

    Attributes:
        dropped: Pictures that must have been lost, as the next one is of a later camera.
    """

    def __init__(self, num_cameras: int = 3) -> None:
        require(num_cameras >= 2, "num_cameras", "be 2 or more", num_cameras)
        self.dropped = 0
        self._num = num_cameras
        self._start()

    def _start(self) -> None:
        self._newest: list[np.ndarray] = []
        self._looks: list[np.ndarray] = []
        self._at = -1
        self._confirmed = 0
        self._doubt = (0, 0)
        """By how many cameras the last doubtful pictures were off, and how many running."""

    @property
    def is_locked(self) -> bool:
        """Whether it is known which picture is whose: each camera was recognised twice running."""
        return self._confirmed >= 2 * self._num

    def add(self, picture: np.ndarray) -> int | None:
        """The camera of the next picture.

        Args:
            picture: New pictures only; RGB uint8 ``[H, W, 3]``.

        Returns:
            Its number, 0 to ``num_cameras`` - 1; ``None`` while that is not known yet.
        """
        tiny = _signature(picture)
        if tiny is None and not self.is_locked:
            self._start()
            return None
        if tiny is not None and len(self._newest) < self._num:
            self._newest.append(tiny)
            self._looks.append(tiny)
            self._at = len(self._newest) - 1
            return None
        expected = (self._at + 1) % self._num
        camera, is_certain = self._recognise(tiny, expected)
        if not self.is_locked:
            if camera == expected and is_certain:
                self._confirmed += 1
            else:  # one was lost among the first: begin again
                self._start()
                return self.add(picture)
        self.dropped += (camera - expected) % self._num
        self._at = camera
        if is_certain and tiny is not None:
            self._newest[camera] = tiny
            self._looks[camera] = self._looks[camera] + _FORGET * (tiny - self._looks[camera])
        return camera if self.is_locked else None

    def looks_like(self, reference: np.ndarray) -> int:
        """Number of the camera whose pictures look most like ``reference``, once locked.

        Args:
            reference: A picture of one of the cameras, from any other time and place; RGB uint8
                ``[H, W, 3]``.

        Raises:
            ConfigError: It shows nothing.
        """
        tiny = _signature(reference)
        if tiny is None:
            raise ConfigError("reference must show something, got a picture of one colour.")
        return int(np.argmin([_distance(tiny, look) for look in self._looks]))

    def _recognise(self, tiny: np.ndarray | None, expected: int) -> tuple[int, bool]:
        """The picture's camera, and whether that is certain enough to learn its looks from it."""
        if tiny is None:
            return expected, False
        far = [
            _distance(tiny, newest) + 0.5 * _distance(tiny, look)
            for newest, look in zip(self._newest, self._looks, strict=True)
        ]
        nearest = int(np.argmin(far))
        if nearest == expected or far[expected] < SAME:
            self._doubt = (0, 0)
            return expected, True
        off = (nearest - expected) % self._num
        running = self._doubt[1] + 1 if self._doubt[0] == off else 1
        self._doubt = (off, running)
        if far[nearest] < CLEAR * far[expected]:
            self._doubt = (0, 0)
            return nearest, True
        if running >= RUNNING and self.is_locked:
            self._doubt = (0, 0)
            return nearest, False
        return expected, False


def _signature(picture: np.ndarray) -> np.ndarray | None:
    """A tiny version at mean 0 and deviation 1, so that light and fades do not matter, float32
    ``[h, w, 3]``; ``None`` of a picture that shows nothing."""
    width, height = SIGNATURE
    every = max(1, min(len(picture) // (4 * height), picture.shape[1] // (4 * width)))
    some = np.ascontiguousarray(picture[::every, ::every])  # 16 pixels for each of the tiny one do
    tiny = cv2.resize(some, SIGNATURE, interpolation=cv2.INTER_AREA).astype(np.float32)
    tiny -= tiny.mean()
    deviation = float(tiny.std())
    return tiny / deviation if deviation > FLAT else None


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())
