"""Settings of what is captured for a game that does not hand out its pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from charles.errors import require

ScreenKind = Literal["x11", "dxcam", "windows_capture", "wayland", "replay"]

WAYS = ("x11", "dxcam", "windows_capture", "wayland", "replay")


@dataclass(frozen=True, kw_only=True)
class ScreenConfig:
    """Which pixels, and how they are fetched."""

    kind: ScreenKind = "x11"
    """``x11`` (Linux), ``dxcam`` or ``windows_capture`` (Windows), ``wayland`` (Linux; asks the
    user once), ``replay`` (a recording)."""
    title: str = ""
    """The window with this title, or with a title that has it as a part; it is followed when it
    moves. Empty for the screen itself."""
    region: tuple[int, int, int, int] | None = None
    """Left, top, width and height in pixels: of the window's content, if there is a title,
    otherwise of the monitor. By default all of it."""
    monitor: int = 1
    """Which monitor, where no title is given; 1 is the first, 0 is all of them together (x11)."""
    file: Path | None = None
    """The recording to replay: a video, or an MCAP file."""
    topic: str = ""
    """Which channel of an MCAP file; empty where only one has pictures."""
    is_realtime: bool = True
    """Replay by the wall clock; otherwise each grab is the next picture."""
    max_age_s: float = 1.0
    """A picture that has not changed for so long is stale: the game hangs, or waits in a menu."""
    cameras: Literal[1, 3] = 1
    """3: the game shows three cameras in turn, the network's, one from behind and a spare one, each
    picture being the next one's; the network sees its own alone."""
    cameras_hz: float = 90.0
    """Pictures per second of all three together."""
    reference: Path | None = None
    """With three cameras, a picture of the network's (PNG, JPEG) from any time and place, to tell
    by which one that is."""

    def __post_init__(self) -> None:
        require(self.kind in WAYS, "screen.kind", f"be one of {WAYS}", self.kind)
        require(self.monitor >= 0, "screen.monitor", "be 0 or more", self.monitor)
        require(self.max_age_s > 0, "screen.max_age_s", "be positive", self.max_age_s)
        if self.region is not None:
            rule = "be left, top, width, height, the last two positive"
            require(
                len(self.region) == 4 and min(self.region[2:]) > 0,
                "screen.region",
                rule,
                self.region,
            )
        require(self.cameras_hz > 0, "screen.cameras_hz", "be positive", self.cameras_hz)
        if self.cameras > 1:
            fix = "Name a picture of the camera that the network is to see."
            has_one = self.reference is not None
            require(has_one, "screen.reference", "be given with three cameras", None, fix)
        if self.kind == "replay":
            fix = "Name the recording with --game.window.screen.file."
            require(self.file is not None, "screen.file", "be given to replay", self.file, fix)
            self._require_unset("title", "a recording has no windows")
        else:
            self._require_unset("file", f"{self.kind} captures a screen; only replay reads a file")

    def _require_unset(self, name: str, why: str) -> None:
        value = getattr(self, name)
        require(not value, f"screen.{name}", "be left out", value, f"It has no use here: {why}.")
