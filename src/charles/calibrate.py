"""Measuring a game: how it answers a pad's axes, and how late it shows what the wheel does.

It drives by itself, on whatever road the game puts the car on: an empty, straight and even one is
best. The pad is neutral on every way out.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from charles.calibration import fit_axis
from charles.errors import CalibrationError
from charles.game_config import GameConfig
from charles.human_config import HumanConfig
from charles.io.calibration import (
    AxesCalibration,
    AxisCalibration,
    Calibration,
    LatencyCalibration,
    load_calibration,
    save_calibration,
)
from charles.io.capture import capture_of
from charles.io.deadzones import to_axis
from charles.io.game import Game, Scene, Telemetry
from charles.io.games import make_game as make_known_game
from charles.io.pads.make import make_device
from charles.io.pads.watched import PATIENCE_S, Watch
from charles.io.pads.xbox import LET_GO_S, NEUTRAL, WAKE_UP_S, PadReport, XboxDevice
from charles.latency_offset import Found, Pulse, find, in_ms, shifts, spread
from charles.options import CalibrateOptions
from charles.pad_config import DeadZone
from charles.timing import clock_ns

GREY_WIDTH = 240
"""Width that pictures are compared at, pixels."""

PULSE_S, REST_S = 0.4, 1.2
"""How long the wheel is held to each side, and straight: longer than pictures may be late."""

SPEED_UP_S = 12.0
"""How long the car may take to come near to a speed."""

CREEP_MPS = 0.5
"""A car that is slower stands."""

GameMaker = Callable[[GameConfig], Game]


@dataclass
class Rig:
    """A game with a pad on it that shows plain axes. One thread only."""

    game: Game
    device: XboxDevice
    watch: Watch
    is_watched: bool
    """Whether the pad holds what it shows while the game is silent; a stepped game waits with its
    car, and an adapter lets go of its own commands."""
    period_s: float
    last: Telemetry | None = None
    _shown: PadReport = NEUTRAL

    def show(self, report: PadReport) -> None:
        """Hold axes; says nothing to the game that it holds already."""
        with self.watch.lock:
            if report != self._shown:
                self.device.show(report)
                self._shown = report
            self._renew()

    def tick(self) -> Telemetry:
        """The next instant.

        Raises:
            CalibrationError: The game was silent for so long that the pad was let go of.
        """
        self.last = self.game.tick()
        with self.watch.lock:
            if self.watch.lapses:
                raise CalibrationError(
                    f"The game must send instants all the time, but sent none for {PATIENCE_S:g} s "
                    "while the pad was held. Look what holds it up, and measure again."
                )
            self._renew()
        return self.last

    def _renew(self) -> None:
        if self._shown != NEUTRAL and self.is_watched:
            self.watch.renew()
        else:
            self.watch.rest()

    def hold(self, report: PadReport, seconds: float) -> list[Telemetry]:
        """Hold axes for so long; the instants of that time, the first apart."""
        self.show(report)
        return [self.tick() for _ in range(max(2, round(seconds / self.period_s)))]

    def put_on_road(self) -> None:
        """Put the car elsewhere, at rest."""
        self.show(NEUTRAL)
        self.game.teleport()
        self.tick()

    @property
    def speed_mps(self) -> float | None:
        """As told last; ``None`` where the game does not tell it."""
        return None if self.last is None else self.last.speed_mps


def calibrate(options: CalibrateOptions, make_game: GameMaker | None = None) -> Calibration:
    """Measure what ``options`` say and write it into their file; what else is in it stays.

    Args:
        options: What to measure, in which game, and with which pad.
        make_game: Makes the game; by default the one that ``options.game`` names.

    Raises:
        CalibrationError: The game tells no controls, does not answer, shows no pulse, does not fit
            the formula, or the file is of another game.
        CharlesError: The game or the pad cannot be used.
    """
    config = _as_measured(options.game)
    maker = make_game or (lambda game: make_known_game(game, options.frame, seed=options.seed))
    with closing(maker(config)) as game:
        info = capture_of(game)
        base = Calibration(game=config.name, version=info.version, title=info.title)
        if options.out.exists():
            base = load_calibration(options.out)
            base.require_game(info, options.out)
        if options.mode == "axes" and not info.tells_controls:
            raise CalibrationError(
                f"The game must tell which controls it applies, {config.name} does not. For GTA V "
                "take the v2 mod, for a window a telemetry with pedals and steering "
                "(--game.window.telemetry.kind)."
            )
        with _rig(game, options) as rig:
            if options.mode == "axes":
                found = replace(base, axes=measure_axes(rig, options))
            else:
                latency = measure_latency(rig, options, base.axes)
                found = replace(base, latency=latency, latency_offset_ms=latency.offset_ms)
    found = replace(found, measured=datetime.now(UTC).strftime("%Y-%m-%d"))
    save_calibration(options.out, found)
    if options.mode == "axes":
        found.require_axes(options.out)
    return found


def describe(calibration: Calibration, path: Path) -> str:
    """What was measured, for a person, and how to use it."""
    lines = []
    for name, axis in vars(calibration.axes).items() if calibration.axes else ():
        zone, verdict = axis.zone, "fits" if axis.does_fit else "DOES NOT FIT"
        gains = ", ".join(f"{gain:.2f} at {speed:g} m/s" for speed, gain in axis.gains)
        lines.append(
            f"{name}: dead zone {zone.game:.3f}, limit {zone.limit:.3f}, curve {zone.curve:.2f}, "
            f"gain {gains}; error {axis.residual:.4f} (95 %: {axis.worst:.4f}), {verdict}"
        )
    late = calibration.latency
    if late is not None:
        lines += [
            f"frames show the world {late.offset_ms:.1f} ms later than controls are told "
            f"(95 %: {late.low_ms:.1f} to {late.high_ms:.1f}); {late.found} of {late.injected} "
            f"pulses found; pad to frames {late.frames_ms:.1f} ms",
            f"collect so: bin/train --collect.latency-offset-ms {late.offset_ms:.1f}",
        ]
    if calibration.axes is not None:
        lines.append(f"drive so: bin/play --pad.calibration {path}")
    return "\n".join(lines)


def _as_measured(config: GameConfig) -> GameConfig:
    """The game without a person at its controls, whose pad would be told instead of the game's."""
    return replace(config, window=replace(config.window, human=HumanConfig()))


@contextmanager
def _rig(game: Game, options: CalibrateOptions) -> Iterator[Rig]:
    """A game that is started, with the pad in hand; both are let go of at the end, however."""
    device = make_device(options.pad, game)

    def let_go() -> None:
        with suppress(Exception):  # game or driver may have gone first, and hold nothing then
            device.show(NEUTRAL)

    watch = Watch(let_go)
    try:
        game.reset(Scene(weather="clear", time_of_day_h=12.0, traffic=0.0, seed=options.seed))
        is_watched = game.is_realtime and options.pad.kind != "command"
        rig = Rig(game, device, watch, is_watched, 1.0 / options.rate_hz)
        rig.tick()
        game.set_npc(False)
        device.show(NEUTRAL)
        if options.pad.wake_up and options.pad.kind != "command":
            _wake_up(device)
        rig.tick()
        yield rig
    finally:
        watch.close()
        let_go()
        time.sleep(LET_GO_S)
        with suppress(Exception):
            device.close()


def _wake_up(device: XboxDevice) -> None:
    for is_down in (True, False):
        time.sleep(WAKE_UP_S)
        device.press_a(is_down)


# Axes


def measure_axes(rig: Rig, options: CalibrateOptions) -> AxesCalibration:
    """Sweep both pedals, then the stick at each of the speeds, and fit what is told.

    Raises:
        CalibrationError: The game does not answer, or the speeds cannot be reached.
    """
    pedals = _sweep_pedals(rig, options)
    knots = [0.0]
    fits = [
        fit_axis(name, rows[:, 0], rows[:, 1], rows[:, 2], knots) for name, rows in pedals.items()
    ]
    speeds = options.speeds_mps if rig.speed_mps is not None else (0.0,)
    rows = np.concatenate([_sweep_stick(rig, options, speed, fits[0]) for speed in speeds])
    steering = fit_axis("steering", rows[:, 0], rows[:, 1], rows[:, 2], list(speeds))
    return AxesCalibration(accelerate=fits[0], brake=fits[1], steering=steering)


def _sweep_pedals(rig: Rig, options: CalibrateOptions) -> dict[str, np.ndarray]:
    """Axis, effect and speed of each level of both pedals, in turn so that the car hardly moves."""
    found: dict[str, list[tuple[float, float, float]]] = {"accelerate": [], "brake": []}
    for level in _levels(options.levels):
        for name, side in (("accelerate", 1.0), ("brake", -1.0)):
            report = NEUTRAL._replace(**{_TRIGGERS[name]: level})
            told, speed = _read(rig.hold(report, options.hold_s))
            found[name].append((level, side * float(told[0]), speed))
        _get_free(rig)
    rig.show(NEUTRAL)
    return {name: np.array(rows) for name, rows in found.items()}


_TRIGGERS = {"accelerate": "right_trigger", "brake": "left_trigger"}


def _sweep_stick(
    rig: Rig, options: CalibrateOptions, speed_mps: float, accelerator: AxisCalibration
) -> np.ndarray:
    """Axis, effect and speed of each level of the stick, to both sides in turn, at one speed."""
    rows = []
    for level in _levels(options.levels):
        _reach(rig, speed_mps, accelerator)
        for side in (1.0, -1.0):
            pedal = _pedal_for(speed_mps, rig.speed_mps, accelerator)
            report = NEUTRAL._replace(right_trigger=pedal, stick_x=side * level)
            told, speed = _read(rig.hold(report, options.hold_s))
            rows.append((level, side * float(told[1]), speed))
        _get_free(rig)
    rig.show(NEUTRAL)
    return np.array(rows)


def _levels(num: int) -> np.ndarray:
    return np.linspace(0.0, 1.0, num + 1)[1:]


def _read(instants: list[Telemetry]) -> tuple[np.ndarray, float]:
    """What was told, ``[A]``, and the speed: medians of the last third, when all has settled."""
    late = instants[-max(1, len(instants) // 3) :]
    told = np.median([each.controls for each in late], axis=0)
    return told, float(np.median([each.shown_speed_mps for each in late]))


def _get_free(rig: Rig) -> None:
    """Put a car elsewhere that has hit something or left the road."""
    assert rig.last is not None
    if rig.last.is_collision or rig.last.is_off_road:
        rig.put_on_road()


def _pedal_for(wanted_mps: float, now_mps: float | None, axis: AxisCalibration) -> float:
    """The accelerator's axis that brings a car near to a speed."""
    if now_mps is None or wanted_mps <= 0.0:
        return 0.0
    control = min(max(0.3 * (wanted_mps - now_mps) + 0.02 * wanted_mps, 0.0), 1.0)
    return float(to_axis(control / axis.gain(0.0), replace(axis.zone, neutral=0.0)))


def _reach(rig: Rig, wanted_mps: float, axis: AxisCalibration) -> None:
    """Come near to a speed, straight ahead; from somewhere else if something is in the way.

    Raises:
        CalibrationError: It cannot be reached.
    """
    if wanted_mps <= 0.0 or rig.speed_mps is None:
        return
    fastest = 0.0
    for _ in range(4):
        for _ in range(round(SPEED_UP_S / rig.period_s)):
            speed = rig.speed_mps or 0.0
            fastest = max(fastest, speed)
            if speed >= 0.9 * wanted_mps:
                return
            report = NEUTRAL._replace(right_trigger=_pedal_for(wanted_mps, speed, axis))
            rig.show(report)
            if rig.tick().is_collision:
                break
        rig.put_on_road()
    raise CalibrationError(
        f"The car must reach {wanted_mps:g} m/s straight ahead, got {fastest:.1f} m/s at most. "
        "Start on a long straight road, or ask for less with --speeds-mps."
    )


# Latency


def measure_latency(
    rig: Rig, options: CalibrateOptions, axes: AxesCalibration | None
) -> LatencyCalibration:
    """Push the wheel again and again while the car rolls, and find each push in the pictures.

    Raises:
        CalibrationError: Too few pushes are found.
    """
    accelerator = axes.accelerate if axes else AxisCalibration(zone=DeadZone(neutral=0.0))
    pulses = [
        _push(rig, options, 1 if number % 2 == 0 else -1, accelerator)
        for number in range(options.repeats)
    ]
    rig.show(NEUTRAL)
    seen = [found for found in map(find, pulses) if found is not None]
    is_right = sum(found.is_to_the_right for found in seen) * 2 > len(seen)
    seen = [found for found in seen if found.is_to_the_right == is_right]
    if len(seen) < max(3, options.repeats // 2):
        raise CalibrationError(
            f"{options.repeats} pushes on the wheel must be seen in the pictures, {len(seen)} "
            "were. Does the game read this pad (--pad.kind)? Does the camera move with the car? "
            "Try a stronger --push, another --speed-mps, or an emptier road."
        )
    return _latency_of(seen, len(pulses))


def _latency_of(seen: list[Found], injected: int) -> LatencyCalibration:
    told = [found.told_ns for found in seen if found.told_ns is not None]
    is_told = len(told) == len(seen)
    offsets = np.array([found.frames_ns - (found.told_ns or 0.0) for found in seen])
    offset = spread(offsets)
    return LatencyCalibration(
        offset_ms=in_ms(offset.median),
        low_ms=in_ms(offset.low),
        high_ms=in_ms(offset.high),
        found=len(seen),
        injected=injected,
        frames_ms=in_ms(float(np.median([found.frames_ns for found in seen]))),
        told_ms=in_ms(float(np.median(told))) if is_told else None,
    )


def _push(
    rig: Rig, options: CalibrateOptions, direction: int, accelerator: AxisCalibration
) -> Pulse:
    """One push to a side and one back, with all pictures from before to long after."""
    _get_free(rig)
    _reach(rig, options.speed_mps, accelerator)
    recorded = _Recorded(rig)
    rolling = NEUTRAL._replace(
        right_trigger=_pedal_for(options.speed_mps, options.speed_mps, accelerator)
    )
    recorded.hold(rolling, REST_S)
    # A clock of their own have games that are stepped: their last instant is the time of the push.
    injected_ns = clock_ns() if rig.game.is_realtime else recorded.times_ns[-1]
    for side in (direction, -direction):
        recorded.hold(rolling._replace(stick_x=side * options.push), PULSE_S)
    recorded.hold(rolling, REST_S)
    rig.show(NEUTRAL)  # finding motion in the pictures takes its time
    return Pulse(
        times_ns=np.array(recorded.times_ns),
        told=np.array(recorded.told),
        shift_px=shifts(np.array(recorded.frames)),
        injected_ns=injected_ns,
        direction=direction,
    )


class _Recorded:
    """Pictures and controls of successive instants; a picture that came twice counts once."""

    def __init__(self, rig: Rig) -> None:
        height, width, _ = rig.game.frame_shape
        self._rig = rig
        self._frame = np.zeros(rig.game.frame_shape, np.uint8)
        self._size = (min(GREY_WIDTH, width), max(16, round(height * min(1, GREY_WIDTH / width))))
        self.times_ns: list[int] = []
        self.told: list[float] = []
        self.frames: list[np.ndarray] = []

    def hold(self, report: PadReport, seconds: float) -> None:
        """Hold axes for so long."""
        self._rig.show(report)
        for _ in range(round(seconds / self._rig.period_s)):
            telemetry = self._rig.tick()
            if self.times_ns and telemetry.captured_ns <= self.times_ns[-1]:
                continue
            self._rig.game.grab(self._frame)
            grey = cv2.cvtColor(self._frame, cv2.COLOR_RGB2GRAY)
            self.times_ns.append(telemetry.captured_ns)
            self.told.append(float(telemetry.controls[1]))
            self.frames.append(cv2.resize(grey, self._size, interpolation=cv2.INTER_AREA))
