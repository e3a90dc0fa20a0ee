"""Why a virtual pad cannot be made, in words that name what is missing and the fix."""

import errno
import os

UINPUT = "/dev/uinput"
"""The kernel's door to virtual input devices."""

RULE = (
    f'{UINPUT} may not be opened: add the rule KERNEL=="uinput", TAG+="uaccess" to '
    f"/etc/udev/rules.d/50-uinput.rules and log in again, or chmod 0666 {UINPUT} once."
)
MODULE = f"{UINPUT} is missing: modprobe uinput; a container needs --device {UINPUT}."
NO_KERNEL = (
    "This kernel has no uinput, as in many containers and small virtual machines: use a full "
    "kernel, for example Debian's linux-image-amd64."
)
GROUP = "The new pad may not be read back: usermod -aG input $USER and log in again."
LIBRARY = "The library libevdev is missing: apt-get install libevdev2."
BUS = (
    "The driver ViGEmBus is missing or stopped: install ViGEmBus 1.17 and restart. Under Wine or "
    "Proton there is none: run the player natively on Linux, the game sees its pad."
)
ANY = "Virtual pads work on Windows with ViGEmBus and on Linux with uinput."


def check_uinput(path: str = UINPUT) -> None:
    """Open and close the kernel's door once; libraries hide why they could not.

    Raises:
        OSError: It cannot be opened; with its number.
    """
    os.close(os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0)))


def explained(err: Exception) -> str:
    """What is missing for a virtual pad, and what to do about it, from a driver's own error."""
    text = f"{type(err).__name__}: {err}"
    return (
        f"Cannot make a virtual pad ({text}). {_fix_of(err)} Or drive with --pad.kind keyboard, "
        "or --pad.kind command, the game's own commands."
    )


def _fix_of(err: Exception) -> str:
    text = str(err)
    number = err.errno if isinstance(err, OSError) else None
    if "VIGEM" in text.upper():
        return BUS
    if "libevdev" in text:
        return LIBRARY
    if number in (errno.EACCES, errno.EPERM):
        return GROUP if "/dev/input" in text else RULE
    if "cannot be opened for writing" in text:  # evdev's UInputError has no number
        return RULE
    if number == errno.ENOENT or "uinput module is loaded" in text:
        return MODULE
    return NO_KERNEL if number in (errno.ENODEV, errno.ENXIO) else ANY
