"""What a game tells about how its pictures come about, so that two captures can be compared.

A game has it as an attribute ``capture``; one that has not, as a game from outside, is taken to say
nothing, and nothing is compared that one side does not tell.
"""

from dataclasses import dataclass

from charles.pad_config import ZonesConfig


@dataclass(frozen=True, kw_only=True)
class CaptureInfo:
    """How a game's pictures come about, and which dead zones lie between it and whoever drives."""

    name: str = ""
    """The game's name in the settings; empty for a game from outside."""
    title: str = ""
    """Of its window; it may change, so it is no part of a contract."""
    version: str = ""
    """Of the game, or of the mod that puts it within reach; empty where that is not known."""
    build: str = ""
    """Of the game's program, see :mod:`charles.io.builds`; empty where that is not known."""
    camera: str = ""
    """The game's own name of the camera; empty where it does not tell."""
    resizer: str = ""
    """What made the picture this size, with its version; ``rendered`` if it was drawn so."""
    region: tuple[int, int, int, int] | None = None
    """Part of window or screen that is seen: left, top, width and height; ``None`` for all."""
    read: ZonesConfig | None = None
    """Dead zones that a person's pad is read with; ``None`` where nobody's is read."""
    write: ZonesConfig | None = None
    """Dead zones that the game's own commands are written with; ``None`` where there are none."""
    tells_controls: bool = True
    """Whether the game tells which controls it applies."""


def capture_of(game: object) -> CaptureInfo:
    """What ``game`` tells about its capture."""
    info = getattr(game, "capture", None)
    return info if isinstance(info, CaptureInfo) else CaptureInfo()
