"""The ZeroMQ fork of DeepGTAV as a game, for builds of GTA V that the v2 mod cannot run on.

It is meant for driving and for changing weather, clock and camera. Its controls are read at the
places of a build of 2017, so they are no labels unless the options say that they were looked at.

The fork pauses the game for every message and for several ticks more for each picture: picture and
telemetry belong together, but a second of the clock is not one of the game. Pictures are those of
the whole screen, 1:1; they are made small here, by the mean over areas.

References:
    D. Ott, 2025, "DeepGTAV", https://github.com/David0tt/DeepGTAV
"""

from typing import Any

import cv2
import numpy as np

from charles.config import GameConfig
from charles.io.deepgtav import DeepGTAVGame
from charles.io.deepgtav_dialect import RATE_HZ, WANTED, text_of
from charles.io.deepgtav_options import Camera, DeepGTAVOptions
from charles.io.deepgtav_pairs import Link
from charles.io.deepgtav_zmq_link import ZmqLink
from charles.town import protocol

MOST_BUFFERED = (1920, 1080)
"""Width and height of the depth buffer that the fork can read at most."""


class ZmqDialect:
    """See :class:`charles.io.deepgtav_dialect.Dialect`.

    Args:
        screen: Width and height of the game's picture on the screen, pixels.
        camera: Where it is taken.
    """

    name = "DeepGTAV (ZeroMQ)"
    are_controls_doubtful = True
    may_be_ignored = True
    resizer = "cv2-area-1"
    num_stale = 3
    """One picture that goes out with the scene itself, and one each before the messages are read
    that switch capturing on and place the camera."""

    def __init__(self, *, screen: tuple[int, int], camera: Camera) -> None:
        self._screen, self._camera = screen, camera

    @property
    def camera(self) -> str:
        """See :class:`charles.io.deepgtav_dialect.Dialect`: where it is, and how it is turned."""
        camera = self._camera
        place = (camera.right_m, camera.ahead_m, camera.up_m, *camera.turn_deg)
        return " ".join(f"{value:g}" for value in place)

    def connect(self, address: tuple[str, int], *, timeout_s: float) -> Link:
        """See :class:`charles.io.deepgtav_dialect.Dialect`."""
        width, height = self._screen
        size = protocol.frame_bytes(height, width)
        return ZmqLink(address, frame_bytes=size, timeout_s=timeout_s)

    def start(self, scenario: dict[str, Any]) -> list[bytes]:
        """See :class:`charles.io.deepgtav_dialect.Dialect`.

        The fork does not notice that a client left, and overlooks a start while it runs; so it is
        stopped first.
        """
        width, height = self._screen
        most_wide, most_high = MOST_BUFFERED
        share = min(1.0, most_wide / width, most_high / height)
        dataset = {
            "rate": RATE_HZ,
            "frame": [round(width * share), round(height * share)],
            "screenResolution": [width, height],
            # Wanted by default in mods of this family, and of no use here.
            "vehicles": False,
            "peds": False,
        }
        dataset |= dict.fromkeys(WANTED, True)
        body = {"scenario": _located(scenario), "dataset": dataset}
        return [text_of("stop", None), text_of("start", body), *self._record()]

    def config(self, scenario: dict[str, Any]) -> list[bytes]:
        """See :class:`charles.io.deepgtav_dialect.Dialect`."""
        return [text_of("config", {"scenario": _located(scenario)}), *self._record()]

    def commands(self, throttle: float, brake: float, steering: float) -> bytes:
        """See :class:`charles.io.deepgtav_dialect.Dialect`."""
        body = {"throttle": throttle, "brake": brake, "steering": steering}
        return text_of("commands", body)

    def stop(self) -> list[bytes]:
        """See :class:`charles.io.deepgtav_dialect.Dialect`."""
        return [text_of("StopRecording", None), text_of("stop", None)]

    def light(self, weather: str, hour: int, minute: int) -> list[bytes] | None:
        """See :class:`charles.io.deepgtav_dialect.Dialect`."""
        clock = {"hour": hour, "minute": minute, "second": 0}
        return [text_of("SetWeather", {"weather": weather}), text_of("SetClockTime", clock)]

    def aim(self, camera: Camera) -> list[bytes]:
        """See :class:`charles.io.deepgtav_dialect.Dialect`."""
        self._camera = camera
        return [self._place_camera()]

    def write_picture(self, frame: bytearray, out: np.ndarray) -> None:
        """See :class:`charles.io.deepgtav_dialect.Dialect`."""
        width, height = self._screen
        pixels = protocol.frame_pixels(frame, height, width)
        if out.shape != pixels.shape:
            pixels = cv2.resize(pixels, out.shape[1::-1], interpolation=cv2.INTER_AREA)
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=out)

    def _record(self) -> list[bytes]:
        """Without recording the pictures are whatever was in memory."""
        return [text_of("StartRecording", None), self._place_camera()]

    def _place_camera(self) -> bytes:
        """All six numbers: one that is missing ends the game."""
        camera = self._camera
        body = {"x": camera.right_m, "y": camera.ahead_m, "z": camera.up_m}
        turn = dict(zip(("rot_x", "rot_y", "rot_z"), camera.turn_deg, strict=True))
        return text_of("SetCameraPositionAndRotation", body | turn)


def make_zmq_game(
    config: GameConfig,
    *,
    height: int,
    width: int,
    seed: int = 0,
    screen: tuple[int, int],
    options: DeepGTAVOptions | None = None,
    camera: Camera | None = None,
) -> DeepGTAVGame:
    """The fork's client; nothing is started before its first ``reset``.

    Args:
        config: Where the game listens, and the weathers and hours to choose from.
        height: Frame height in pixels.
        width: Frame width in pixels.
        seed: Seeds what a scene leaves open.
        screen: Width and height of the game's picture on the screen, pixels.
        options: Patience and habits.
        camera: Where the picture is taken; by default where the v2 mod takes it.
    """
    dialect = ZmqDialect(screen=screen, camera=camera or Camera())
    return DeepGTAVGame(
        config, height=height, width=width, seed=seed, options=options, dialect=dialect
    )


def _located(scenario: dict[str, Any]) -> dict[str, Any]:
    """The scenario with a place of four numbers: of a shorter one the fork reads beyond its end."""
    return scenario | {"location": [*scenario["location"], None, None]}
