"""The error tree. Every message names the value, the rule and the fix.

::

    CharlesError
    ├── ConfigError            a setting, or a combination of settings, that cannot work
    ├── ExtraMissingError      an optional dependency is not installed
    ├── GameError              a game cannot be reached or does not do what it must
    │   └── GameProtocolError  a game sent something that its protocol does not allow
    ├── PadError               a gamepad cannot be made or driven
    ├── CaptureError           a screen, window or recording cannot be captured
    │   └── WindowHiddenError  a window is covered or minimised; the next grab may work again
    ├── SharedMemoryError      a block is missing, foreign, or does not fit
    ├── StorageError           the disk copy of the samples cannot be written or read
    ├── CheckpointError        a checkpoint is missing, truncated or of another network
    ├── ContractError          what is captured is not what the run has learned from
    ├── CalibrationError       a game cannot be measured, or a calibration is not of this game
    ├── WireError              a port is busy or closed, or a message is malformed
    └── WorkerError            a worker process failed; carries its traceback

All are picklable, so that a worker's error can be raised again in its parent.
"""

import difflib
from collections.abc import Iterable, Sequence

_MOST_LISTED = 12


class CharlesError(Exception):
    """Base of every error that Charles raises on purpose; its text is written for the user."""


class ConfigError(CharlesError):
    """A setting, or a combination of settings, that cannot work."""


class ExtraMissingError(CharlesError):
    """An optional dependency is not installed; the text names the extra."""


class GameError(CharlesError):
    """A game cannot be reached or does not do what it must."""


class GameProtocolError(GameError):
    """A game sent something that its protocol does not allow."""


class PadError(CharlesError):
    """A gamepad cannot be made or driven."""


class CaptureError(CharlesError):
    """A screen, window or recording cannot be captured."""


class WindowHiddenError(CaptureError):
    """A window is covered, minimised or off the screen; the next grab may work again."""


class SharedMemoryError(CharlesError):
    """A shared-memory block is missing, foreign, or does not fit."""


class StorageError(CharlesError):
    """The disk copy of the samples cannot be written or read."""


class CheckpointError(CharlesError):
    """A checkpoint is missing, truncated or of another network."""


class ContractError(CharlesError):
    """What is captured is not what the run has learned from."""


class CalibrationError(CharlesError):
    """A game cannot be measured, or a calibration is malformed or of another game."""


class WireError(CharlesError):
    """A port is busy or closed, or a message is malformed."""


class WorkerError(CharlesError):
    """A worker process failed; the text carries its traceback."""


def require(condition: bool, name: str, rule: str, value: object, fix: str = "") -> None:
    """Raise a :class:`ConfigError` unless ``condition`` holds.

    Args:
        condition: Whether the value obeys the rule.
        name: The setting, as the user writes it, for example ``collect.rate_hz``.
        rule: What it must be, for example ``be positive``.
        value: What it is.
        fix: What to do about it, one sentence; may be empty.

    Raises:
        ConfigError: ``condition`` is false. The text reads ``name must rule, got value. fix``.
    """
    if not condition:
        raise ConfigError(f"{name} must {rule}, got {value!r}.{' ' + fix if fix else ''}")


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """The sentence that names the nearest of the ``known`` names; empty if none is near."""
    near = difflib.get_close_matches(value, list(known), n=1, cutoff=0.4)
    return f"Did you mean {near[0]!r}?" if near else ""


def list_rows(rows: Sequence[str]) -> str:
    """The first rows of a table, a line each, and how many more there are."""
    more = len(rows) - _MOST_LISTED
    return "\n".join([*rows[:_MOST_LISTED], *([f"  and {more} more"] if more > 0 else [])])
