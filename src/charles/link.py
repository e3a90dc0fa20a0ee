"""A player's membership of a server, in a thread of its own.

The driving loop never touches a socket: it leaves a note of how it goes and looks at what the
server said last. A server that goes away is looked for until it is back.
"""

import threading
from collections.abc import Mapping
from contextlib import closing
from types import TracebackType

from charles.berth import Berth
from charles.config import ServerConfig
from charles.connection import Connection
from charles.errors import CharlesError
from charles.messages import Welcome

BEAT_S = 0.1
"""Between two looks at the connection."""


class Link:
    """Keeps a player in touch with whichever server listens. Use as a context manager.

    Args:
        server: Where the server is, or will be.
        wants_lane: Whether the player is to have a way into the frame pool.

    Attributes:
        berth: That way, while there is a server.
        welcome: What the server said last when it let the player in; ``None`` before. Replaced,
            never changed.
    """

    def __init__(self, server: ServerConfig, *, wants_lane: bool = False) -> None:
        self.welcome: Welcome | None = None
        self.berth = Berth()
        self._wants_lane = wants_lane
        self._server = server
        self._note: tuple[str, float, Mapping[str, str | float]] = ("starting", 0.0, {})
        self._error: CharlesError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def __enter__(self) -> "Link":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say goodbye to the server; takes a moment, at most 3 s."""
        self._stop.set()
        self._thread.join(timeout=3.0)

    def tell(self, state: str, *, rate_hz: float, detail: Mapping[str, str | float]) -> None:
        """Leave a note for the server; never blocks."""
        self._note = (state, rate_hz, detail)

    def check(self) -> None:
        """Raise what ended the link, if anything did.

        Raises:
            WireError: The server refused the player.
        """
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with closing(
                Connection(self._server, "player", wants_lane=self._wants_lane)
            ) as connection:
                while not self._stop.is_set():
                    self._serve(connection)
        except CharlesError as err:
            self._error = err

    def _serve(self, connection: Connection) -> None:
        """Join, then pass notes on until the server is lost."""
        welcome = connection.wait_welcome(stop=self._stop)
        if welcome is None:
            return
        self.welcome = welcome
        if welcome.lane is not None:
            self.berth.moor(welcome.lane)
        try:
            while not connection.is_lost and not self._stop.wait(BEAT_S):
                connection.poll()
                state, rate_hz, detail = self._note
                connection.status(state=state, rate_hz=rate_hz, detail=detail)
        finally:  # before a word to this or another server, which then gives the slots to others
            self.berth.leave()
