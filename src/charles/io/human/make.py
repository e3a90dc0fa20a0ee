"""Making the person's input that a config names."""

from charles.human_config import HumanConfig
from charles.io.human.source import HumanInput


def make_human(config: HumanConfig) -> HumanInput | None:
    """The pad or wheel that ``config`` names, open; ``None`` for kind ``none``.

    Raises:
        ExtraMissingError: What reads it is not installed.
        PadError: It is not there.
        ConfigError: An axis is named that does not exist.
    """
    if config.kind == "none":
        return None
    if config.kind == "evdev":
        from charles.io.human.evdev_pad import EvdevPad

        return EvdevPad(config)
    from charles.io.human.xinput_pad import XInputPad

    return XInputPad(config)
