"""Capture under Wayland: the desktop's portal asks the user, PipeWire delivers, GStreamer reads.

Only the user can say what is captured, by a dialogue at the start; no program may choose a window
by its title. A covered window is captured as if it were not, where the desktop can do that.
Run as a whole under sway, with xdg-desktop-portal-wlr; GNOME's and KDE's portals were not tried.

References:
    "XDG Desktop Portal: ScreenCast",
    https://flatpak.github.io/xdg-desktop-portal/docs/doc-org.freedesktop.portal.ScreenCast.html
"""

import contextlib
import os
import secrets
import select
import sys
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

OLDEST_NS = NS_PER_S
"""How old a picture can be when it comes; one that says more counts by another clock."""

MOST_PADDING = 256
"""Bytes that may follow the pixels of a row."""

BUS = "org.freedesktop.portal.Desktop"
PATH = "/org/freedesktop/portal/desktop"
SCREEN_CAST = "org.freedesktop.portal.ScreenCast"
REQUEST = "org.freedesktop.portal.Request"

CALL_MS = 10_000
"""How long the portal may take to answer, but for the dialogue."""

MONITOR_OR_WINDOW = 3
CANCELLED = 1

ELEMENTS = ("pipewiresrc", "videoconvert", "appsink")


class WaylandSource:
    """A :class:`charles.io.screen.source.FrameSource` on what the user picks in a dialogue.

    The time of a picture is when the desktop drew it, where that is told with it, else when it
    came. A desktop sends nothing while nothing changes: then the newest picture is a duplicate.

    Args:
        config: Only ``region`` and ``max_age_s`` count.
        height: Frame height in pixels.
        width: Frame width in pixels.
        origin: GStreamer's description of a source of pictures; by default the portal is asked.

    Raises:
        CaptureError: There is no portal, the user said no, or no pictures are to be had.
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
        self._gst: Any = gi.Gst
        self._pipeline: Any = None
        self._sink: Any = None
        self._portal = Portal(gi) if origin is None else None
        try:
            if self._portal is not None:
                origin = f"{self._portal.pipewire()} name=source"
            self._pipeline = self._gst.parse_launch(
                f"{origin} ! videoconvert ! video/x-raw,format=BGRx ! appsink name=sink "
                "max-buffers=1 drop=true sync=false enable-last-sample=false"
            )
            self._sink = self._pipeline.get_by_name("sink")
            self._play()
        except CaptureError:
            self.close()
            raise

    def grab(self, out: np.ndarray) -> Capture:
        """See :class:`charles.io.screen.source.FrameSource`; waits for the first picture only."""
        check_frame(out, self.frame_shape)
        if self._pipeline is None:
            raise CaptureError("The capture is closed. Make a new one.")
        wait_s = 0.0 if self._has_picture else FIRST_S
        sample = self._sink.emit("try-pull-sample", round(wait_s * NS_PER_S))
        arrived_ns = clock_ns()
        if sample is not None and self._read(sample, out):
            np.copyto(self._last, out)
            self._has_picture = True
            return self.watch.see(out, self._captured_ns(sample, arrived_ns))
        self._require_alive()
        np.copyto(out, self._last)
        return self.watch.see_again(arrived_ns)

    def close(self) -> None:
        """See :class:`charles.io.screen.source.FrameSource`."""
        if self._pipeline is not None:
            self._pipeline.set_state(self._gst.State.NULL)
        if self._portal is not None:
            self._portal.close()
        self._pipeline = self._sink = self._portal = None

    def _play(self) -> None:
        """Start the pictures; blocks until both ends agree on their size."""
        state, failure = self._gst.State.PLAYING, self._gst.StateChangeReturn.FAILURE
        if self._pipeline.set_state(state) == failure:
            raise CaptureError(
                f"The desktop sends no pictures: {self._error() or 'it does not answer'}. "
                "See whether PipeWire and its session manager, wireplumber, are running."
            )

    def _read(self, sample: Any, out: np.ndarray) -> bool:
        """Write a picture into ``out``; not if it has another size than was agreed on."""
        shape = sample.get_caps().get_structure(0)
        height, width = shape.get_value("height"), shape.get_value("width")
        buffer = sample.get_buffer()
        is_mapped, memory = buffer.map(self._gst.MapFlags.READ)
        if not is_mapped:
            raise CaptureError("A picture of PipeWire's could not be read.")
        try:
            row_bytes, rest = divmod(memory.size, height)
            is_whole = not rest and 0 <= row_bytes - 4 * width < MOST_PADDING
            if is_whole:
                part = part_of(Rectangle(0, 0, width, height), self._region, "the picture")
                rows = np.frombuffer(memory.data, np.uint8).reshape(height, row_bytes)
                pixels = rows[:, : width * 4].reshape(height, width, 4)
                self._resizer.into(out, pixels[part.top : part.bottom, part.left : part.right])
        finally:
            buffer.unmap(memory)
        if not is_whole:
            # What is captured has another size now. PipeWire's plugin (0.3) sends such pictures
            # without a word; it has to be asked again.
            self._pipeline.set_state(self._gst.State.READY)
            self._play()
        return is_whole

    def _captured_ns(self, sample: Any, arrived_ns: int) -> int:
        told_ns = sample.get_buffer().pts
        # Counted from the pipeline's start or, by some versions of the plugin, from the clock's.
        for captured_ns in (told_ns + self._pipeline.get_base_time(), told_ns):
            if arrived_ns - OLDEST_NS < captured_ns <= arrived_ns:
                return captured_ns
        return arrived_ns

    def _error(self) -> str:
        """What GStreamer last complained of; empty if of nothing."""
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        return "" if message is None else message.parse_error()[0].message.rstrip(".")

    def _require_alive(self) -> None:
        """Raise if no picture will come any more, or none has ever come."""
        error = self._error()
        if error:
            raise CaptureError(f"The capture ended: {error}.")
        if self._sink.get_property("eos") or self._has_stopped():
            raise CaptureError("The capture ended: the window was closed, or the user stopped it.")
        if not self._has_picture:
            raise CaptureError(
                f"No picture came in {FIRST_S} s. Is the window minimised, or does nothing move?"
            )

    def _has_stopped(self) -> bool:
        """Whether the portal's stream is over, of which PipeWire's plugin says nothing."""
        if self._portal is None:
            return False
        pad = self._pipeline.get_by_name("source").get_static_pad("src")
        is_working = pad.get_task_state() == self._gst.TaskState.STARTED
        return not is_working or self._portal.has_lost_pipewire()


class Portal:
    """A session with the desktop's ScreenCast portal. Use from one thread.

    Args:
        gi: The modules ``Gio`` and ``GLib``.

    Raises:
        CaptureError: There is no session bus.
    """

    def __init__(self, gi: Any) -> None:
        self._gio, self._glib = gi.Gio, gi.GLib
        flags = self._gio.DBusConnectionFlags
        # A connection of its own: the shared one ends the process when the bus ends.
        try:
            address = self._gio.dbus_address_get_for_bus_sync(self._gio.BusType.SESSION, None)
            self._bus = self._gio.DBusConnection.new_for_address_sync(
                address, flags.AUTHENTICATION_CLIENT | flags.MESSAGE_BUS_CONNECTION, None, None
            )
        except self._glib.Error as err:
            raise CaptureError(
                f"There is no desktop session to ask for its screen: {err.message}. Run within one."
            ) from err
        self._session = ""
        self._pipewire = -1

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
        arguments = variant("(oa{sv})", (self._session, {}))
        reply, files = self._call(SCREEN_CAST, "OpenPipeWireRemote", arguments)
        self._pipewire = files.get(reply.unpack()[0])
        return f"pipewiresrc fd={self._pipewire} path={node}"

    def has_lost_pipewire(self) -> bool:
        """Whether PipeWire itself has ended, once it was reached. Does not block."""
        if sys.platform == "win32":  # which has neither Wayland nor polls
            return False
        poll = select.poll()
        poll.register(self._pipewire, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """End the session, which ends the capture. Does not raise."""
        if self._session:
            with contextlib.suppress(CaptureError):
                self._call("org.freedesktop.portal.Session", "Close", None, path=self._session)
        if self._pipewire >= 0:
            os.close(self._pipewire)  # the plugin has a copy
        with contextlib.suppress(self._glib.Error):
            self._bus.close_sync(None)
        self._session, self._pipewire = "", -1

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
            self._call(SCREEN_CAST, method, self._glib.Variant(types, (*values, options)))
            self._wait(answers)
        finally:
            self._bus.signal_unsubscribe(subscription)
        if not answers or answers[0][0] == CANCELLED:
            raise CaptureError("Nothing was chosen in the desktop's dialogue. Start again.")
        if answers[0][0]:
            raise CaptureError(
                f"The desktop could not do what it was asked for ({method}). Its own part of the "
                "portal may be missing or have failed: see its log, for example with "
                "journalctl --user --unit 'xdg-desktop-portal*'."
            )
        return answers[0][1]

    def _call(self, interface: str, method: str, arguments: Any, *, path: str = PATH) -> Any:
        """The reply and the files that came with it."""
        flags = self._gio.DBusCallFlags.NONE
        try:
            return self._bus.call_with_unix_fd_list_sync(
                BUS, path, interface, method, arguments, None, flags, CALL_MS, None, None
            )
        except self._glib.Error as err:
            raise CaptureError(
                f"The desktop does not let its screen be captured: {err.message}. "
                "Install xdg-desktop-portal and the part of it that fits the desktop."
            ) from err

    def _wait(self, answers: list[tuple[int, dict[str, Any]]]) -> None:
        context = self._glib.MainContext.default()
        deadline_s = time.monotonic() + DIALOGUE_S
        while not answers and not self._bus.is_closed() and time.monotonic() < deadline_s:
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
        raise ExtraMissingError(_needed(str(err))) from err
    gi.repository.Gst.init(None)
    for element in ELEMENTS:
        if gi.repository.Gst.ElementFactory.find(element) is None:
            raise ExtraMissingError(_needed(f"no element {element!r}"))
    return gi.repository


def _needed(why: str) -> str:
    return (
        "Capture under Wayland needs PyGObject, and GStreamer with its plugin for PipeWire "
        f"({why}). Install the system's packages, on Debian gstreamer1.0-pipewire, "
        "gstreamer1.0-plugins-base and gir1.2-gst-plugins-base-1.0, then: "
        "pip install 'charles[wayland]'."
    )
