"""What a network was shown while it learned, so that it is shown nothing else while it drives.

A :class:`CaptureContract` is made of a run's settings and of what the game tells about itself
(:mod:`charles.io.capture`). The first collector's is the run's; it lies in
``<run_dir>/contract.json``, beside the disk copy and in every checkpoint. Collectors, players and
resumed runs are held to it: a difference is an error that names the field and both values, unless
the user says that it is accepted.

What one side does not tell is not compared. What may differ between a collector and a player (real
time or stepped, host and port, a window's title) is no part of it.
"""

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from charles.config import TrainConfig
from charles.errors import ConfigError, ContractError
from charles.files import write_whole
from charles.io.capture import CaptureInfo
from charles.pad_config import DeadZone, ZonesConfig

FILE = "contract.json"

AXES = ("accelerate", "brake", "steering")

OF_SETTINGS = (
    "game", "height", "width", "pixel_format", "num_frames", "frame_stride", "crop_top",
    "crop_bottom", "rate_hz", "latency_offset_ms",
)  # fmt: skip
"""Parts of a contract that a run's settings alone decide."""

ACCEPT = "or say --accept-contract to go on all the same"


MEASURED_WITHIN = 0.01
"""A zone that ``bin/calibrate`` finds is within 0.004 of the true one."""


@dataclass(frozen=True, kw_only=True)
class ZoneContract:
    """How one axis answers; what only smooths our own writing is no part of it."""

    game: float
    """Share of the axis that the game ignores."""
    limit: float
    """Largest value of the axis."""
    curve: float
    """Exponent of the answer beyond the dead zone."""


@dataclass(frozen=True, kw_only=True)
class AxesContract:
    """The dead-zone table of the axes that a car is driven with."""

    accelerate: ZoneContract
    brake: ZoneContract
    steering: ZoneContract


@dataclass(frozen=True, kw_only=True)
class CaptureContract:
    """How pictures and controls come about; ``None`` and empty texts are what is not told."""

    game: str
    """The game's name in the settings."""
    version: str = ""
    """Of the game, or of its mod or protocol."""
    build: str = ""
    """Of the game's program: its name and a digest."""
    camera: str = ""
    """The game's name of the camera."""
    height: int
    width: int
    """Size of the frames, pixels."""
    pixel_format: str
    """How frames are kept: ``rgb`` or ``yuv420``."""
    num_frames: int = 1
    frame_stride: int = 1
    """Pictures of a sample, and instants between two."""
    colour_order: str = "rgb"
    """Of the frames that the game hands out."""
    resizer: str = ""
    """What made the picture this size, with its version."""
    region: tuple[int, int, int, int] | None = None
    """Part of window or screen that is seen; ``None`` for all of it."""
    crop_top: float
    crop_bottom: float
    """Shares of the frame that the network is not shown."""
    rate_hz: float
    """Instants per second that samples are taken from."""
    latency_offset_ms: float = 0.0
    """How much later frames show the world than the controls that are told."""
    pad_read: AxesContract | None = None
    """Dead zones that a person's pad is read with."""
    pad_write: AxesContract | None = None
    """Dead zones that controls are written to the game with."""

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that are the same for equal contracts."""
        text = json.dumps(msgspec.to_builtins(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def contract_of_capture(
    config: TrainConfig, info: CaptureInfo | None = None, *, pad: ZonesConfig | None = None
) -> CaptureContract:
    """The contract of a run's settings and of one game.

    Args:
        config: The run's settings.
        info: What the game tells; by default there is no game yet, and it tells nothing.
        pad: Dead zones that a player's own pad is written with, where it has one.
    """
    info = info or CaptureInfo()
    frame, network, write = config.frame, config.network, pad or info.write
    return CaptureContract(
        game=config.game.name,
        version=info.version,
        build=info.build,
        camera=info.camera,
        height=frame.height,
        width=frame.width,
        pixel_format=frame.pixel_format,
        num_frames=frame.num_frames,
        frame_stride=frame.frame_stride,
        resizer=info.resizer,
        region=info.region,
        crop_top=network.crop_top,
        crop_bottom=network.crop_bottom,
        rate_hz=config.collect.rate_hz,
        latency_offset_ms=config.collect.latency_offset_ms,
        pad_read=axes_contract(info.read) if info.read else None,
        pad_write=axes_contract(write) if write else None,
    )


def axes_contract(zones: ZonesConfig) -> AxesContract:
    """The table of three dead zones."""

    def one(zone: DeadZone) -> ZoneContract:
        values = (round(value, 4) for value in (zone.game, zone.limit, zone.curve))
        return ZoneContract(**dict(zip(("game", "limit", "curve"), values, strict=True)))

    return AxesContract(
        accelerate=one(zones.accelerate), brake=one(zones.brake), steering=one(zones.steering)
    )


def differences(expected: CaptureContract, got: CaptureContract) -> list[str]:
    """What differs, a line each: ``camera: hood → chase``; what one side does not tell does not.

    A player's pad is also held to the dead zones that a person's pad was read with, where the game
    has any there: both are the same game's. A wheel, which games mostly read without, says nothing
    about a pad.
    """
    rows = _rows(_flat(expected), _flat(got), "")
    if expected.pad_read and got.pad_write and not expected.pad_write:
        read = _flat(expected.pad_read)
        kept = {
            name: value
            for name, value in read.items()
            if read[f"{name.partition('.')[0]}.game"] > 0
        }
        rows += _rows(kept, _flat(got.pad_write), "pad_write.")
    return rows


def _rows(before: dict[str, Any], after: dict[str, Any], prefix: str) -> list[str]:
    return [
        f"{prefix}{name}: {before[name]} → {after[name]}"
        for name in before.keys() & after.keys()
        if not _are_same(prefix + name, before[name], after[name])
    ]


def _are_same(name: str, before: Any, after: Any) -> bool:
    """Whether two values say the same; of a pad's zones, which can be measured, nearly the same."""
    is_measured = name.startswith("pad_")
    return abs(before - after) <= MEASURED_WITHIN if is_measured else before == after


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """What is told, by dotted name."""
    flat: dict[str, Any] = {}
    for name, each in vars(value).items():
        if isinstance(each, AxesContract | ZoneContract):
            flat |= _flat(each, f"{prefix}{name}.")
        elif name == "region":
            flat[prefix + name] = list(each) if each else "all"
        elif each is not None and each != "":
            flat[prefix + name] = each
    return flat


def require_same(
    expected: CaptureContract, got: CaptureContract, *, who: str, is_accepted: bool = False
) -> None:
    """Hold somebody to a run's contract; with ``is_accepted`` differences are told on stderr.

    Args:
        expected: The run's, or the checkpoint's.
        got: Of who is held to it.
        who: For the text, for example ``this player``.
        is_accepted: Whether the user has said that differences do not matter.

    Raises:
        ContractError: They differ; the text names each field and both values.
    """
    rows = sorted(differences(expected, got))
    if not rows:
        return
    text = (
        f"{who} must capture as the run did (contract {expected.fingerprint}), got "
        f"{', '.join(rows)}."
    )
    if not is_accepted:
        raise ContractError(f"{text} Make them the same, {ACCEPT}.")
    print(f"warning: {text} Accepted.", file=sys.stderr, flush=True)


def write_contract(directory: Path, contract: CaptureContract) -> None:
    """Write ``contract.json`` into a directory that exists, whole or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    data = {**msgspec.to_builtins(contract), "fingerprint": contract.fingerprint}
    path = directory / FILE
    try:
        write_whole(path, json.dumps(data, indent=2) + "\n")
    except OSError as err:
        raise ConfigError(f"{path} cannot be written: {err.strerror}.") from err


def read_contract(directory: Path) -> CaptureContract | None:
    """The contract in a directory; ``None`` if there is none yet.

    Raises:
        ConfigError: The file is no contract of this version.
    """
    path = directory / FILE
    try:
        return from_data(json.loads(path.read_bytes()), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as err:
        raise ConfigError(f"{path} must be a readable JSON object, got: {err}.") from err


def as_data(contract: CaptureContract | None) -> dict[str, Any] | None:
    """A contract as plain data for a checkpoint."""
    return None if contract is None else msgspec.to_builtins(contract)


def from_data(data: Any, where: str) -> CaptureContract | None:
    """The reverse of :func:`as_data`.

    Args:
        data: Plain data; ``None`` for no contract.
        where: Where it lies, for error texts.

    Raises:
        ConfigError: It is no contract of this version.
    """
    if data is None:
        return None
    try:
        return msgspec.convert(data, CaptureContract, strict=False)
    except msgspec.ValidationError as err:
        raise ConfigError(
            f"{where} must be a capture contract of this version, got: {err}. "
            "Use the version of Charles that wrote it."
        ) from err


def resumed_contract(config: TrainConfig, *, is_accepted: bool) -> CaptureContract | None:
    """The contract that a run goes on with, held against its settings before any game is there.

    Returns:
        ``None`` for a run that has none yet, and for one whose changes are accepted: its next
        collector's is then the run's.

    Raises:
        ContractError: The settings are others than those it was captured with.
        ConfigError: The file is no contract of this version.
    """
    kept = read_contract(config.run_dir)
    if kept is None:
        return None
    ours = contract_of_capture(config)
    now = replace(kept, **{name: getattr(ours, name) for name in OF_SETTINGS})
    if config.game.name == "window":
        window = config.game.window
        zones = axes_contract(window.human.zones) if window.human.kind != "none" else None
        now = replace(now, region=window.screen.region, pad_read=zones)
    require_same(kept, now, who="a run that goes on", is_accepted=is_accepted)
    return None if differences(kept, now) else kept
