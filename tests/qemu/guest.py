"""What runs in the guest: makes both Linux pads, reads them back through evdev, prints JSON.

Process 1 of a virtual machine that has no uinput yet; see :mod:`tests.qemu.boot`.
"""

import ctypes
import fcntl
import glob
import json
import os
import platform
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import evdev  # pyright: ignore[reportMissingImports]
import numpy as np
from evdev import ecodes  # pyright: ignore[reportMissingImports]

from charles.errors import PadError
from charles.io.deadzones import from_axis
from charles.io.pads.make import make_pad
from charles.io.pads.pad import Pad
from charles.io.pads.uinput import NAME, UinputDevice
from charles.io.pads.xbox import NEUTRAL, PadReport
from charles.pad_config import PadConfig, PadKind
from charles.process import stop_on_signals
from charles.sample import DRIVING_CONTROLS
from charles.takeover import Takeover, make_takeover
from charles.takeover_config import TakeoverConfig
from charles.timing import RateKeeper

KINDS: tuple[PadKind, ...] = ("uinput", "virtual")
CAR: Any = SimpleNamespace(controls=DRIVING_CONTROLS)
SWEEP = (
    (0.0, 0.0), (0.2, -0.1), (-0.5, 0.33), (1.0, 1.0), (-1.0, -1.0), (0.01, -0.01), (0.7, 1.01),
)  # fmt: skip
"""Acceleration/braking and steering; the last steering is out of range."""
FINIT_MODULE = 313
"""Number of the system call on x86-64."""
JSIOCGNAME = 0x80806A13
"""Asks a joystick for its name, 128 bytes of it."""
WAIT_S = 60.0


def load_module(path: str) -> None:
    """Load a kernel module."""
    with open(path, "rb") as module:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(FINIT_MODULE, module.fileno(), b"", 0) != 0:
            raise OSError(ctypes.get_errno(), path)


def refusal(kind: PadKind) -> str:
    """The text of the error that making a pad ends with."""
    try:
        make_pad(PadConfig(kind=kind), CAR).close()
    except PadError as err:
        return str(err)
    return ""


def nodes() -> list[str]:
    """Input devices that there are."""
    return glob.glob("/dev/input/event*")


def wait_for_pad(before: list[str]) -> evdev.InputDevice:
    """The Xbox pad that came since."""
    ends_s = time.monotonic() + WAIT_S
    while time.monotonic() < ends_s:
        for node in set(nodes()) - set(before):
            device = evdev.InputDevice(node)
            if device.name == NAME:
                return device
            device.close()
        time.sleep(0.001)
    raise TimeoutError("no pad was plugged in")


def is_unplugged(reader: evdev.InputDevice) -> bool:
    """Whether the pad goes away, and has nothing more to say."""
    ends_s = time.monotonic() + WAIT_S / 6
    while os.path.exists(reader.path) and time.monotonic() < ends_s:
        time.sleep(0.01)
    with suppress(OSError):
        reader.close()
    return not os.path.exists(reader.path)


def name_of(kind: int, code: int) -> str:
    """Name, or names, that the kernel's headers have for an event."""
    names = ecodes.bytype[kind][code]
    return names if isinstance(names, str) else " ".join(names)


def read_events(reader: evdev.InputDevice, until: threading.Event) -> list[list]:
    """Names and values of what the pad does, until told to stop or until it is unplugged."""
    events = []
    with suppress(OSError):
        while not until.is_set():
            if select.select([reader], [], [], 0.02)[0]:
                events += [
                    [event.timestamp(), name_of(event.type, event.code), event.value]
                    for event in reader.read()
                    if event.type != ecodes.EV_SYN
                ]
    return events


def joystick_names() -> list[str]:
    """What joysticks the kernel's older interface has, which SDL's games fall back on."""
    names = []
    for path in glob.glob("/dev/input/js*"):
        with open(path, "rb") as joystick:
            buffer = bytearray(128)
            fcntl.ioctl(joystick, JSIOCGNAME, buffer)
            names.append(buffer.split(b"\0")[0].decode())
    return names


def identity(reader: evdev.InputDevice) -> dict:
    """What a game can ask a pad before it moves."""
    keys = reader.capabilities()[ecodes.EV_KEY]
    axes = reader.capabilities()[ecodes.EV_ABS]
    return {
        "name": reader.name,
        **{field: f"{value:04x}" for field, value in reader.info._asdict().items()},
        "buttons": sorted(name_of(ecodes.EV_KEY, key) for key in keys),
        "axes": {
            ecodes.ABS[code]: [info.min, info.max, info.fuzz, info.flat] for code, info in axes
        },
        "joysticks": joystick_names(),
    }


def shown(reader: evdev.InputDevice) -> dict[str, int]:
    """Where the axes are."""
    return {
        name: reader.absinfo(ecodes.ecodes[f"ABS_{name}"]).value for name in ("X", "Y", "Z", "RZ")
    }


def sweep(pad: Pad, reader: evdev.InputDevice) -> list[dict]:
    """What the axes show for some controls, and what a game with that dead zone applies."""
    zones, rows = PadConfig().zones, []
    for pedal, wheel in SWEEP:
        pad.update(np.array([pedal, wheel], np.float32))
        axes = shown(reader)
        applied = from_axis(axes["RZ"] / 255, zones.accelerate) - from_axis(
            axes["Z"] / 255, zones.brake
        )
        steering = from_axis(axes["X"] / 32767, zones.steering)
        rows.append({"controls": [pedal, wheel], "axes": axes,
                     "applied": [float(applied), float(steering)]})  # fmt: skip
    return rows


def watched(kind: PadKind) -> dict:
    """Life of one pad, from being plugged in to being unplugged."""
    before, made, done = nodes(), [], threading.Event()
    maker = threading.Thread(target=lambda: made.append(make_pad(PadConfig(kind=kind), CAR)))
    maker.start()
    reader = wait_for_pad(before)
    events: list[list] = []
    reading = threading.Thread(target=lambda: events.extend(read_events(reader, done)))
    reading.start()
    maker.join(WAIT_S)
    done.set()
    reading.join(WAIT_S)
    pad = made[0]
    report = {"identity": identity(reader), "wake_up": events, "sweep": sweep(pad, reader)}
    pad.update(np.array([np.nan, 1.0], np.float32))
    report["after_nan"] = shown(reader)
    pad.close()
    report["unplugged"] = is_unplugged(reader)
    return report


def stalled(kind: PadKind) -> dict:
    """What a pad does whose player stands still: how long full throttle is held."""
    before = nodes()
    with closing(make_pad(PadConfig(kind=kind, wake_up=False), CAR)) as pad:
        reader = wait_for_pad(before)
        pad.update(np.array([1.0, 1.0], np.float32))
        began_s = time.monotonic()
        held = shown(reader)
        while shown(reader)["RZ"] and time.monotonic() < began_s + WAIT_S:
            time.sleep(0.005)
        return {"held": held, "held_s": time.monotonic() - began_s, "then": shown(reader)}


class Wheel:
    """A pad that a network brakes with, at 30 Hz, and that a person may take over."""

    def __init__(self, takeover: Takeover, pad: Pad, reader: evdev.InputDevice) -> None:
        self.reader = reader
        self._takeover, self._pad, self._keeper = takeover, pad, RateKeeper(30.0)

    def drive(self, until: Callable[[], bool]) -> None:
        """Drive until something is so, but not for ever."""
        ends_s = time.monotonic() + WAIT_S
        while not until() and time.monotonic() < ends_s:
            self._keeper.wait()
            turn = self._takeover.step()
            self._pad.update(np.array([-1.0, 0.0], np.float32) if turn is None else turn.controls)

    def drive_until_shown(self, axis: str) -> None:
        """Drive until an axis is at its end: RZ is the person's, Z the network's."""
        self.drive(lambda: shown(self.reader)[axis] == 255)


def touch_ms(hand: UinputDevice, wheel: Wheel, after_s: float) -> float:
    """How long after a person's touch the pad follows."""
    touched_s: list[float] = []

    def touch() -> None:
        time.sleep(after_s)
        touched_s.append(time.monotonic())
        hand.show(PadReport(0.0, 1.0, -1.0))

    thread = threading.Thread(target=touch)
    thread.start()
    wheel.drive_until_shown("RZ")
    took_ms = 1e3 * (time.monotonic() - touched_s[0])
    thread.join()
    return took_ms


def taken_over() -> dict:
    """A person's pad of the kernel's beside a network's: how long after a touch the latter follows,
    and what happens when the former is unplugged while the person drives."""
    hand, before = UinputDevice(), nodes()
    takeover = make_takeover(TakeoverConfig(kind="evdev", release_s=0.3))
    assert takeover is not None
    takeover.begin(DRIVING_CONTROLS)
    took_ms = []
    with takeover, closing(make_pad(PadConfig(kind="uinput", wake_up=False), CAR)) as pad:
        wheel = Wheel(takeover, pad, wait_for_pad(before))
        for number in range(20):
            hand.show(NEUTRAL)
            wheel.drive_until_shown("Z")
            took_ms.append(touch_ms(hand, wheel, 0.05 + 0.0017 * number))  # anywhere in a tick
        hand.close()
        wheel.drive(lambda: bool(takeover.note))
        let_go = shown(wheel.reader)
        wheel.drive_until_shown("Z")
        return {"touch_to_pad_ms": took_ms, "note": takeover.note, "after_unplugging": let_go,
                "then": shown(wheel.reader)}  # fmt: skip


def hold(kind: PadKind) -> None:
    """A player's process: full throttle and steering until it is told to stop."""
    stop = stop_on_signals()
    with closing(make_pad(PadConfig(kind=kind, wake_up=False), CAR)) as pad:
        while not stop.wait(0.03):
            pad.update(np.array([1.0, 1.0], np.float32))


def ended_by(kind: PadKind, number: int) -> dict:
    """What a pad does when its process is sent a signal."""
    before = nodes()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            hold(kind)
        os._exit(0)
    reader = wait_for_pad(before)
    ends_s = time.monotonic() + WAIT_S
    while shown(reader)["RZ"] != 255 and time.monotonic() < ends_s:
        time.sleep(0.005)
    held = shown(reader)
    os.kill(child, number)
    events = read_events(reader, threading.Event())  # ends when the pad is unplugged
    os.waitpid(child, 0)
    last = {name: value for _, name, value in events}
    return {"held": held, "last": last, "unplugged": is_unplugged(reader)}


def main() -> None:
    """All of it; the result is one line of JSON between two marks."""
    report: dict = {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "evdev": metadata.version("evdev"),
        "vgamepad": metadata.version("vgamepad"),
    }
    report["without_module"] = {kind: refusal(kind) for kind in KINDS}
    load_module(sys.argv[1])
    os.seteuid(65534)
    report["without_permission"] = {kind: refusal(kind) for kind in KINDS}
    os.seteuid(0)
    for kind in KINDS:
        report[kind] = watched(kind)
        report[kind]["stalled"] = stalled(kind)
        report[kind]["sigterm"] = ended_by(kind, signal.SIGTERM)
        report[kind]["sigkill"] = ended_by(kind, signal.SIGKILL)
    report["takeover"] = taken_over()
    print(f"\nBEGIN {json.dumps(report)} END", flush=True)


if __name__ == "__main__":
    main()
