"""Capture under Wayland: the desktop's portal asks the user, PipeWire delivers, GStreamer reads.

Only the user can say what is captured, by a dialogue at the start; no program may choose a window
by its title. A covered window is captured as if it were not, where the desktop can do that.
The portal was not run yet, for want of a Wayland desktop; the reading of pictures was, with another
source of GStreamer's.

References:
    "XDG Desktop Portal: ScreenCast",
    https://flatpak.github.io/xdg-desktop-portal/docs/doc-org.freedesktop.portal.ScreenCast.html
"""

import secrets
import time
from typing import Any

import numpy as np

from charles.errors import CaptureError, ExtraMissingError, require
from charles.io.screen.region import Rectangle, part_of
from charles.io.screen.resize import Resizer, check_frame
from charles.io.screen.source import Capture
from charles.io.screen.watch import Watch
from charles.screen_config import ScreenConfig
from charles.timing import NS_PER_S, clock_ns

DIALOGUE_S = 120.0
"""How long the user may take to choose."""

FIRST_S = 5.0
"""How long the first picture may take."""

BUS = "org.freedesktop.portal.Desktop"
PATH = "/org/freedesktop/portal/desktop"
SCREEN_CAST = "org.freedesktop.portal.ScreenCast"
REQUEST = "org.freedesktop.portal.Request"

MONITOR_OR_WINDOW = 3


class WaylandSource:
    """A :class:`charles.io.screen.source.FrameSource` on what the user picks in a dialogue.

    Args:
        config: Only ``region`` and ``max_age_s`` count.
        height: Frame height in pixels.
        width: Frame width in pixels.
        origin: GStreamer's description of a source of pictures; by default the portal is asked.

    Raises:
        CaptureError: There is no portal, or the user said no.
        ConfigError: A title was given.
        ExtraMissingError: PyGObject or GStreamer is not installed.
    """

    def __init__(
        self, config: ScreenConfig, *, height: int, width: int, origin: str | None = None
    ) -> None:
        fix = "Under Wayland the window is chosen in the desktop's own dialogue."
        require(not config.title, "screen.title", "be left out", config.title, fix)
        self._resizer = Resizer(height, width)
        self.frame_shape = self._resizer.frame_shape
        self.watch = Watch(self.frame_shape, config.max_age_s)
        self._region, self._last = config.region, np.zeros(self.frame_shape, np.uint8)
        self._has_picture = False
        gi = _load_gi()
        self._gst, self._portal = gi.Gst, None
        if origin is None:
            self._portal = Portal(gi)
            origin = self._portal.pipewire()
        self._pipeline: Any = self._gst.parse_launch(
            f"{origin} ! videoconvert ! video/x-raw,format=BGRx "
            "! appsink name=sink max-buffers=1 drop=true sync=false"
        )
        self._sink = self._pipeline.get_by_name("sink")
        self._pipeline.set_state(self._gst.State.PLAYING)

    def grab(self, out: np.ndarray) -> Capture:
        """See :class:`charles.io.screen.source.FrameSource`; waits for the first picture only."""
        check_frame(out, self.frame_shape)
        if self._pipeline is None:
            raise CaptureError("The capture is closed. Make a new one.")
        wait_s = 0.0 if self._has_picture else FIRST_S
        sample = self._sink.emit("try-pull-sample", round(wait_s * NS_PER_S))
        arrived_ns = clock_ns()
        if sample is None:
            self._require_alive()
            np.copyto(out, self._last)
            return self.watch.see_again(arrived_ns)
        self._read(sample, out)
        np.copyto(self._last, out)
        self._has_picture = True
        return self.watch.see(out, arrived_ns)

    def close(self) -> None:
        """See :class:`charles.io.screen.source.FrameSource`."""
        if self._pipeline is not None:
            self._pipeline.set_state(self._gst.State.NULL)
        if self._portal is not None:
            self._portal.close()
        self._pipeline = self._portal = None

    def _read(self, sample: Any, out: np.ndarray) -> None:
        shape = sample.get_caps().get_structure(0)
        height, width = shape.get_value("height"), shape.get_value("width")
        part = part_of(Rectangle(0, 0, width, height), self._region, "the picture")
        buffer = sample.get_buffer()
        is_mapped, memory = buffer.map(self._gst.MapFlags.READ)
        if not is_mapped:
            raise CaptureError("A picture of PipeWire's could not be read.")
        try:
            rows = np.frombuffer(memory.data, np.uint8).reshape(height, -1)
            pixels = rows[:, : width * 4].reshape(height, width, 4)
            self._resizer.into(out, pixels[part.top : part.bottom, part.left : part.right])
        finally:
            buffer.unmap(memory)

    def _require_alive(self) -> None:
        """Raise if no picture will come any more, or none has ever come."""
        kinds = self._gst.MessageType.ERROR | self._gst.MessageType.EOS
        message = self._pipeline.get_bus().pop_filtered(kinds)
        if message is not None and message.type == self._gst.MessageType.ERROR:
            raise CaptureError(f"The capture ended: {message.parse_error()[0].message}.")
        if message is not None or self._sink.get_property("eos"):
            raise CaptureError("The capture ended: the window was closed, or the user stopped it.")
        if not self._has_picture:
            raise CaptureError(f"No picture came in {FIRST_S} s. Is the window minimised?")


class Portal:
    """A session with the desktop's ScreenCast portal. Use from one thread.

    Args:
        gi: The modules ``Gio`` and ``GLib``.

    Raises:
        CaptureError: There is no session bus.
    """

    def __init__(self, gi: Any) -> None:
        self._gio, self._glib = gi.Gio, gi.GLib
        try:
            self._bus = self._gio.bus_get_sync(self._gio.BusType.SESSION, None)
        except self._glib.Error as err:
            raise CaptureError(
                f"There is no desktop session to ask for its screen: {err.message}. Run within one."
            ) from err
        self._session = ""

    def pipewire(self) -> str:
        """Ask the user; GStreamer's description of what was picked. Blocks for the dialogue.

        Raises:
            CaptureError: There is no portal, or the user said no.
        """
        variant = self._glib.Variant
        token = variant("s", f"charles_{secrets.token_hex(4)}")
        made = self._request("CreateSession", "(a{sv})", (), {"session_handle_token": token})
        self._session = made["session_handle"]
        choice = {"types": variant("u", MONITOR_OR_WINDOW), "multiple": variant("b", False)}
        self._request("SelectSources", "(oa{sv})", (self._session,), choice)
        started = self._request("Start", "(osa{sv})", (self._session, ""), {})
        node = started["streams"][0][0]
        reply, files = self._bus.call_with_unix_fd_list_sync(
            BUS,
            PATH,
            SCREEN_CAST,
            "OpenPipeWireRemote",
            variant("(oa{sv})", (self._session, {})),
            None,
            self._gio.DBusCallFlags.NONE,
            -1,
            None,
            None,
        )
        return f"pipewiresrc fd={files.get(reply.unpack()[0])} path={node}"

    def close(self) -> None:
        """End the session, which ends the capture. Does not raise."""
        if self._session:
            session, self._session = self._session, ""
            self._call(session, "org.freedesktop.portal.Session", "Close", None)

    def _request(
        self, method: str, types: str, values: tuple[str, ...], options: dict[str, Any]
    ) -> dict[str, Any]:
        """Call a method of the portal and wait for its answer, which comes as a signal."""
        token = f"charles_{secrets.token_hex(4)}"
        me = self._bus.get_unique_name()[1:].replace(".", "_")
        answers: list[tuple[int, dict[str, Any]]] = []
        # Listened for before asked for, or a quick answer would be missed.
        subscription = self._bus.signal_subscribe(
            BUS,
            REQUEST,
            "Response",
            f"{PATH}/request/{me}/{token}",
            None,
            self._gio.DBusSignalFlags.NONE,
            lambda *signal: answers.append(signal[5].unpack()),
        )
        try:
            options = {**options, "handle_token": self._glib.Variant("s", token)}
            arguments = self._glib.Variant(types, (*values, options))
            self._call(PATH, SCREEN_CAST, method, arguments, must_work=True)
            self._wait(answers)
        finally:
            self._bus.signal_unsubscribe(subscription)
        if not answers or answers[0][0] != 0:
            raise CaptureError("Nothing was chosen in the desktop's dialogue. Start again.")
        return answers[0][1]

    def _call(
        self, path: str, interface: str, method: str, arguments: Any, *, must_work: bool = False
    ) -> None:
        flags = self._gio.DBusCallFlags.NONE
        try:
            self._bus.call_sync(BUS, path, interface, method, arguments, None, flags, 5000, None)
        except self._glib.Error as err:
            if must_work:
                raise CaptureError(
                    f"The desktop does not let its screen be captured: {err.message}. "
                    "Install xdg-desktop-portal and the part of it that fits the desktop."
                ) from err

    def _wait(self, answers: list[tuple[int, dict[str, Any]]]) -> None:
        context = self._glib.MainContext.default()
        deadline_s = time.monotonic() + DIALOGUE_S
        while not answers and time.monotonic() < deadline_s:
            if not context.iteration(False):
                time.sleep(0.02)


def _load_gi() -> Any:
    try:
        import gi  # pyright: ignore[reportMissingImports]

        gi.require_version("Gst", "1.0")
        import gi.repository.Gio  # pyright: ignore[reportMissingImports]
        import gi.repository.GLib  # pyright: ignore[reportMissingImports]
        import gi.repository.Gst  # pyright: ignore[reportMissingImports]
    except (ImportError, ValueError) as err:
        raise ExtraMissingError(
            "Capture under Wayland needs PyGObject, and GStreamer with its plugin for PipeWire. "
            "Install the system's packages, on Debian gstreamer1.0-pipewire and "
            "gir1.2-gst-plugins-base-1.0, then: pip install 'charles[wayland]'."
        ) from err
    gi.repository.Gst.init(None)
    return gi.repository
