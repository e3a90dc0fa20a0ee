"""A town server in a thread of the test, over real TCP."""

import contextlib
import threading
from collections.abc import Iterator

from charles.town.server import ServerFaults, TownServer, TownServerConfig


@contextlib.contextmanager
def serving(faults: ServerFaults | None = None, **settings) -> Iterator[TownServer]:
    """A server on a free port, almost without traffic; stopped, and seen to stop, at the end."""
    settings = {"vehicles": 0, "pedestrians": 0, "port": 0, "seed": 3} | settings
    server = TownServer(TownServerConfig(faults=faults or ServerFaults(), **settings))
    stop = threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()
