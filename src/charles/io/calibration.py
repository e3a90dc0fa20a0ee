"""What was measured of a game, and the file it is kept in; :mod:`charles.calibrate` measures.

``calibration.json`` has, for each axis, the dead zone, limit and curve that a pad is written with
(:class:`charles.pad_config.DeadZone`) and what a full deflection does at which speed; and how much
later frames show the world than the controls that are told.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from charles.config import TrainConfig
from charles.errors import CalibrationError, CharlesError
from charles.files import write_whole
from charles.io.capture import CaptureInfo
from charles.pad_config import DeadZone, ZonesConfig

FORMAT = 1
"""Raised when an older reader could not read the file."""


@dataclass(frozen=True, kw_only=True)
class AxisCalibration:
    """One axis as the game answers it."""

    zone: DeadZone
    """Dead zone, limit and curve."""
    gains: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    """What full deflection of an axis without a limit would do at a speed: speeds (m/s), rising,
    each with its effect; in between evenly."""
    residual: float = 0.0
    """Typical error of the fit (median), in units of the control."""
    worst: float = 0.0
    """What 19 of 20 errors stay below."""
    num: int = 0
    """Measurements behind it."""
    does_fit: bool = True
    """Whether the formula describes the game."""

    def gain(self, speed_mps: float) -> float:
        """What full deflection does at a speed."""
        speeds, gains = zip(*self.gains, strict=True)
        return float(np.interp(speed_mps, speeds, gains))


@dataclass(frozen=True, kw_only=True)
class AxesCalibration:
    """The axes that a car is driven with."""

    accelerate: AxisCalibration
    brake: AxisCalibration
    steering: AxisCalibration

    @property
    def zones(self) -> ZonesConfig:
        """Their dead zones."""
        return ZonesConfig(
            accelerate=self.accelerate.zone, brake=self.brake.zone, steering=self.steering.zone
        )


@dataclass(frozen=True, kw_only=True)
class LatencyCalibration:
    """How late what is shown is; medians over pulses, milliseconds."""

    offset_ms: float
    """How much later frames show the world than the controls that are told."""
    low_ms: float
    high_ms: float
    """Between these the median lies, with 95 % confidence."""
    found: int
    """Pulses that were found in the frames."""
    injected: int
    """Pulses that were made."""
    frames_ms: float
    """From the pad to the frames that show it."""
    told_ms: float | None
    """From the pad to the controls that are told; ``None`` where the game tells none, so that the
    pad itself stands for them."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is known of one game."""

    game: str
    """Its name in the settings."""
    version: str = ""
    """Of game or mod, where that is known."""
    title: str = ""
    """Of its window, where it is one."""
    axes: AxesCalibration | None = None
    latency_offset_ms: float | None = None
    """For ``collect.latency_offset_ms``; ``None`` where it was not measured."""
    latency: LatencyCalibration | None = None
    measured: str = ""
    """When, as a date."""
    format: int = FORMAT

    def require_axes(self, path: Path) -> AxesCalibration:
        """The axes.

        Raises:
            CalibrationError: They were not measured, or they do not fit the formula.
        """
        if self.axes is None:
            raise CalibrationError(
                f"{path} must have axes, got a calibration without. "
                "Measure them with charles-calibrate --mode axes."
            )
        names = [name for name, axis in vars(self.axes).items() if not axis.does_fit]
        if names:
            raise CalibrationError(
                f"{path} must have axes that fit, got {' and '.join(names)} that do not. Measure "
                "again, on an empty straight road, or set pad.zones by hand."
            )
        return self.axes

    def require_game(self, info: CaptureInfo, path: Path) -> None:
        """Refuse a game that this was not measured in; what one side does not tell may differ.

        Raises:
            CalibrationError: It is another one.
        """
        for name, ours in (("game", info.name), ("version", info.version), ("title", info.title)):
            theirs = getattr(self, name)
            if ours and theirs and ours != theirs:
                raise CalibrationError(
                    f"{path} must be of this game, {name} {ours!r}, got {theirs!r}. "
                    "Measure this game with charles-calibrate."
                )


def load_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises:
        CalibrationError: There is none, or it is malformed.
    """
    try:
        data = json.loads(path.read_bytes())
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise ValueError(f"format {found}")
        return msgspec.convert(data, Calibration, strict=False)
    except OSError as err:
        raise CalibrationError(
            f"{path} must be a file of charles-calibrate, got {err.strerror}."
        ) from err
    except (ValueError, CharlesError) as err:
        raise CalibrationError(
            f"{path} must be a calibration, format {FORMAT}, got: {err}. "
            "Write it with charles-calibrate."
        ) from err


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, whole or not at all.

    Raises:
        CalibrationError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(msgspec.to_builtins(calibration), indent=2) + "\n")
    except OSError as err:
        raise CalibrationError(f"{path} cannot be written: {err.strerror}.") from err


def with_calibration(config: TrainConfig, path: Path | None) -> TrainConfig:
    """``config`` with a person's pad read through the dead zones that were measured.

    Raises:
        CalibrationError: The calibration is of another game, cannot be used, or has found pictures
            to be later than the run takes them to be.
    """
    if path is None:
        return config
    game = config.game
    calibration = load_calibration(path)
    calibration.require_game(CaptureInfo(name=game.name, title=game.window.screen.title), path)
    offset_ms, found = config.collect.latency_offset_ms, calibration.latency
    half_ms = 500.0 / config.collect.rate_hz  # of an instant: finer pairing there is none
    if found is not None and not found.low_ms - half_ms <= offset_ms <= found.high_ms + half_ms:
        raise CalibrationError(
            f"Pictures must be paired as {path} found them, {found.offset_ms:.1f} ms late, got a "
            f"run with {offset_ms:g} ms. Start the trainer with --collect.latency-offset-ms "
            f"{found.offset_ms:.1f}."
        )
    if calibration.axes is None and found is not None:
        return config
    zones = calibration.require_axes(path).zones
    return replace(config, game=game.with_human(replace(game.human, zones=zones)))
