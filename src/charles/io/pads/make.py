"""Making the pad that a config names."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from charles.errors import require
from charles.io.calibration import load_calibration
from charles.io.capture import capture_of
from charles.io.game import Game
from charles.io.pads.pad import Pad
from charles.io.pads.watched import WatchedPad
from charles.pad_config import PadConfig, ZonesConfig

if TYPE_CHECKING:
    from charles.io.pads.xbox import XboxDevice


def zones_of(config: PadConfig) -> ZonesConfig | None:
    """The dead zones that a pad's axes are written with: of its calibration, if it has one.

    ``None`` where the config has no say in it: the game's own commands, keys, no pad.

    Raises:
        CalibrationError: The calibration cannot be read, or has no axes.
    """
    if config.kind in ("keyboard", "none"):
        return None
    if config.calibration is not None:
        return load_calibration(config.calibration).require_axes(config.calibration).zones
    return None if config.kind == "command" else config.zones


def make_pad(config: PadConfig, game: Game) -> Pad:
    """The pad that ``config`` names, at neutral. Takes 1.5 s where a pad has to be woken up.

    One that would hold its controls for ever is a :class:`charles.io.pads.watched.WatchedPad`.

    Args:
        config: Which pad, and how its axes or keys answer.
        game: What is driven: its controls, and for ``command`` its command channel.

    Raises:
        ExtraMissingError: The pad's package is not installed.
        PadError: The system cannot make it; the text says what is missing and the fix.
    """
    pad = _make_plain(config, game)
    return pad if config.kind in ("command", "none") else WatchedPad(pad)


def _make_plain(config: PadConfig, game: Game) -> Pad:
    """The pad itself, unwatched."""
    if config.calibration is not None and config.kind in ("command", "virtual", "uinput"):
        return _calibrated(config, config.calibration, game)
    if config.kind == "command":
        from charles.io.pads.command import CommandPad

        return CommandPad(game)
    if config.kind == "none":
        from charles.io.pads.recording import RecordingPad

        return RecordingPad(game.controls)
    if config.kind == "keyboard":
        return _keyboard(config, game)
    from charles.io.pads.xbox import XboxPad

    device = make_device(config, game)
    return XboxPad(device, game.controls, zones=config.zones, wake_up=config.wake_up)


def make_device(config: PadConfig, game: Game) -> "XboxDevice":
    """What ``config`` shows axes to: a driver's pad, or the game's own commands.

    Raises:
        ConfigError: It is a keyboard, or no pad at all.
        ExtraMissingError: The pad's package is not installed.
        PadError: The system cannot make it, or the game takes no axes as commands.
    """
    kinds = ("command", "virtual", "uinput")
    require(config.kind in kinds, "pad.kind", f"be one of {kinds}, which have axes", config.kind)
    if config.kind == "command":
        from charles.io.pads.command import CommandDevice

        return CommandDevice(game)
    if config.kind == "virtual":
        from charles.io.pads.virtual import VirtualDevice

        return VirtualDevice()
    from charles.io.pads.uinput import UinputDevice

    return UinputDevice()


def _calibrated(config: PadConfig, path: Path, game: Game) -> Pad:
    """A pad with dead zones as they were measured and, where labels are told by the game, gains.

    A person's labels are what a pad of theirs shows, so that no gain lies between them and ours.

    Raises:
        CalibrationError: The calibration is not of this game, or cannot be used.
    """
    from charles.io.pads.calibrated import CalibratedPad
    from charles.io.pads.xbox import XboxPad

    calibration, info = load_calibration(path), capture_of(game)
    calibration.require_game(info, path)
    axes = calibration.require_axes(path)
    is_woken = config.wake_up and config.kind != "command"
    pad = XboxPad(make_device(config, game), game.controls, zones=axes.zones, wake_up=is_woken)
    return pad if info.read is not None else CalibratedPad(pad, axes, game.controls)


def _keyboard(config: PadConfig, game: Game) -> Pad:
    from charles.io.pads.keyboard import KeyboardPad, Keys

    names = tuple(vars(config.keys).values())
    keys: Keys
    if sys.platform == "win32":
        from charles.io.pads.sendinput import SendInputKeys

        keys = SendInputKeys(names)
    else:
        from charles.io.pads.xtest import XTestKeys

        keys = XTestKeys(names, config.display)
    return KeyboardPad(keys, game.controls, config=config)
