"""Making the pad that a config names."""

import sys

from charles.io.game import Game
from charles.io.pads.pad import Pad
from charles.pad_config import PadConfig


def make_pad(config: PadConfig, game: Game) -> Pad:
    """The pad that ``config`` names, at neutral. Takes 1.5 s where a pad has to be woken up.

    Args:
        config: Which pad, and how its axes or keys answer.
        game: What is driven: its controls, and for ``command`` its command channel.

    Raises:
        ExtraMissingError: The pad's package is not installed.
        PadError: The system cannot make it; the text says what is missing and the fix.
    """
    if config.kind == "command":
        from charles.io.pads.command import CommandPad

        return CommandPad(game)
    if config.kind == "none":
        from charles.io.pads.recording import RecordingPad

        return RecordingPad(game.controls)
    if config.kind == "keyboard":
        return _keyboard(config, game)
    from charles.io.pads.xbox import XboxDevice, XboxPad

    device: XboxDevice
    if config.kind == "virtual":
        from charles.io.pads.virtual import VirtualDevice

        device = VirtualDevice()
    else:
        from charles.io.pads.uinput import UinputDevice

        device = UinputDevice()
    return XboxPad(device, game.controls, zones=config.zones, wake_up=config.wake_up)


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
