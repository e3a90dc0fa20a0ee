"""A game that does what a test tells it, and the DeepGTAV client of it."""

import contextlib
import json
import socket
import struct
import threading
import time

import numpy as np

from charles.config import GameConfig
from charles.io.deepgtav import DeepGTAVGame
from charles.io.deepgtav_options import DeepGTAVOptions
from charles.io.game import Scene

HEIGHT, WIDTH = 10, 27
STRIDE = 84
SCENE = Scene(seed=3, weather="clear", time_of_day_h=12.0, place=(0.0, 0.0))


def playing(port, **options):
    """A client of whatever listens on ``port``, closed at the end."""
    options = {"settle_s": 0.0, "reconnect_s": 3.0, "trust_controls": True} | options
    game = DeepGTAVGame(
        GameConfig(name="deepgtav", port=port),
        height=HEIGHT,
        width=WIDTH,
        options=DeepGTAVOptions(**options),
    )
    return contextlib.closing(game)


class Script:
    """A game that does what a test tells it, and keeps what the client sent."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(5.0)
        self.port = self._listener.getsockname()[1]
        self.peer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        if self.peer is not None:
            self.peer.close()

    def accept(self):
        if self.peer is not None:
            self.peer.close()
        self.peer, _ = self._listener.accept()
        self.peer.settimeout(5.0)

    def message(self):
        """The next message: its one key, its body, and its text."""
        (length,) = struct.unpack("<i", self._read(4))
        text = self._read(length)
        ((key, body),) = json.loads(text).items()
        return key, body, text

    def _read(self, count):
        data = b""
        while len(data) < count:
            part = self.peer.recv(count - len(data))
            assert part, "the client left"
            data += part
        return data

    def pair(self, frame=None, text=None, **values):
        data = {"throttle": 0.5, "brake": 0.0, "steering": 0.1, "speed": 3.0,
                "location": [1.0, 2.0, 3.0], "time": 12} | values  # fmt: skip
        frame = b"\x07" * (STRIDE * HEIGHT) if frame is None else frame
        text = json.dumps(data).encode() if text is None else text
        return struct.pack("<i", len(frame)) + frame + struct.pack("<i", len(text)) + text

    def send(self, *pairs):
        self.peer.sendall(b"".join(pairs))


@contextlib.contextmanager
def scripted(**options):
    """A scripted game and a client that has just started a scene in it."""
    with Script() as script, playing(script.port, **options) as game:
        thread = threading.Thread(target=script.accept)
        thread.start()
        game.reset(SCENE)
        thread.join()
        script.start = script.message()
        try:
            yield script, game
        finally:
            script.peer.close()  # first, so that the client need not wait for a goodbye


def wait_for(is_true, seconds=5.0):
    give_up_s = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < give_up_s
        time.sleep(0.005)


def drive(game, is_done, seconds=15.0, *, controls=None):
    """Tick until ``is_done``, with ``controls`` told after every instant, as a player does."""
    give_up_s = time.monotonic() + seconds
    while True:
        if controls is not None:
            game.act(np.array(controls, np.float32))
        if is_done(telemetry := game.tick()):
            return telemetry
        assert time.monotonic() < give_up_s, telemetry
