"""Making the source of pictures that a config names."""

from charles.io.screen.source import FrameSource
from charles.screen_config import ScreenConfig


def make_source(config: ScreenConfig, height: int, width: int) -> FrameSource:
    """The source that ``config`` names, ready to be grabbed from.

    Args:
        config: What to capture, and how.
        height: Frame height in pixels.
        width: Frame width in pixels.

    Raises:
        CaptureError: It is not there to be captured; the text says what is.
        ConfigError: A setting has no use for this way of capture.
        ExtraMissingError: A package that this way needs is not installed.
    """
    if config.cameras > 1:
        from charles.io.screen.interleaved import InterleavedSource, read_reference

        assert config.reference is not None  # the config sees to it
        return InterleavedSource(
            lambda: _make_plain(config, height, width),
            reference=read_reference(config.reference),
            rate_hz=config.cameras_hz,
        )
    return _make_plain(config, height, width)


def _make_plain(config: ScreenConfig, height: int, width: int) -> FrameSource:
    """The source itself, whatever its pictures are of."""
    if config.kind == "x11":
        from charles.io.screen.x11 import X11Source

        return X11Source(config, height=height, width=width)
    if config.kind == "dxcam":
        from charles.io.screen.windows import DxcamSource

        return DxcamSource(config, height=height, width=width)
    if config.kind == "windows_capture":
        from charles.io.screen.windows import WindowsCaptureSource

        return WindowsCaptureSource(config, height=height, width=width)
    if config.kind == "wayland":
        from charles.io.screen.wayland import WaylandSource

        return WaylandSource(config, height=height, width=width)
    from charles.io.screen.replay import ReplaySource

    return ReplaySource(config, height=height, width=width)
