"""Pads and wheels on Linux, read through the kernel's event devices while the game reads them too.

The kernel is asked where the axes are now, rather than for the events since the last time: there is
no queue that could overflow or lag, and no thread.
"""

import glob
import importlib
from typing import Any

from charles.errors import ExtraMissingError, PadError
from charles.human_config import HumanConfig
from charles.io.human.layout import Layout, layout_of
from charles.io.human.source import HumanReading, Person

DEVICES_DIR = "/dev/input"


class EvdevPad:
    """A pad or wheel as a :class:`charles.io.human.source.HumanInput`.

    Args:
        config: Which device, its axes, and the game's dead zones.
        devices_dir: Where the event devices are.

    Raises:
        ExtraMissingError: python-evdev is not installed.
        PadError: There is no such device, or none may be read.
        ConfigError: An axis is named that does not exist.
    """

    def __init__(self, config: HumanConfig, *, devices_dir: str = DEVICES_DIR) -> None:
        self._device: Any
        self._device, self._layout = _open(config, devices_dir)
        self.name: str = self._device.name
        self._person = Person(config)

    def read(self) -> HumanReading:
        """See :class:`charles.io.human.source.HumanInput`."""
        if self._device is None:
            raise PadError("The pad is closed. Make a new one.")
        try:
            axes = self._layout.axes(self._device.absinfo)
            buttons = frozenset(self._device.active_keys())
        except OSError as err:
            raise PadError(
                f"{self.name!r} was unplugged or switched off ({err}). Plug it in and start again."
            ) from err
        return self._person.reading(axes, buttons)

    def close(self) -> None:
        """See :class:`charles.io.human.source.HumanInput`."""
        if self._device is not None:
            self._device.close()
        self._device = None


def _open(config: HumanConfig, devices_dir: str) -> tuple[Any, Layout]:
    """The first device that is wanted and can be used, and where its axes are."""
    evdev = _evdev()
    is_path = config.device.startswith("/")
    paths = [config.device] if is_path else sorted(glob.glob(f"{devices_dir}/event*"), key=_number)
    seen, refused = [], []
    for path in paths:
        try:
            device = evdev.InputDevice(path)
        except PermissionError:
            refused.append(path)
            continue
        except OSError as err:
            seen.append(f"{path}: {err}")
            continue
        try:
            layout = layout_of(device.name, device.capabilities(), config)
        except BaseException:
            device.close()
            raise
        if layout is not None and (is_path or config.device.lower() in device.name.lower()):
            return device, layout
        seen.append(f"{path}: {device.name!r}" + ("" if layout else ", no pad or wheel"))
        device.close()
    raise PadError(_nothing(config.device, devices_dir, seen, refused))


def _nothing(wanted: str, devices_dir: str, seen: list[str], refused: list[str]) -> str:
    """Why no device was found, and what to do about it."""
    text = f"No pad or wheel {f'{wanted!r} ' if wanted else ''}was found in {devices_dir}"
    text += f" (there are: {'; '.join(seen)})." if seen else "."
    if refused:
        return (
            f"{text} {len(refused)} devices may not be read: add yourself to the group input "
            "(sudo usermod -aG input $USER) and log in again."
        )
    return (
        f"{text} Plug it in and switch it on; set human.device to a part of its name, and "
        "human.throttle, human.brake and human.steering where its axes are unusual."
    )


def _number(path: str) -> tuple[int, str]:
    """Sorts event2 before event10."""
    digits = path.rpartition("event")[2]
    return (int(digits) if digits.isdigit() else 0, path)


def _evdev() -> Any:
    try:
        return importlib.import_module("evdev")
    except ImportError as err:
        raise ExtraMissingError(
            "Reading a pad or wheel needs python-evdev, on Linux. Install it: "
            "pip install 'charles[evdev]'."
        ) from err
