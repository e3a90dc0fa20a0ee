"""Players in threads, and waiting for what they do."""

import threading
import time
from contextlib import contextmanager

from charles.io.pads.recording import RecordingPad
from charles.play import play


def wait_for(condition, timeout_s=60.0):
    ends_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends_s, "timed out"
        time.sleep(0.01)


@contextmanager
def playing(options):
    """A player in a thread; yields its pads and, once it has ended, its report."""
    pads, reports, stop = [], [], threading.Event()

    def make_pad(game):
        pads.append(RecordingPad(game.controls))
        return pads[-1]

    thread = threading.Thread(
        target=lambda: reports.append(play(options, stop=stop, make_pad=make_pad))
    )
    thread.start()
    try:
        yield pads, reports
    finally:
        stop.set()
        thread.join(60.0)
