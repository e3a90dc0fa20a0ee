"""Town's servers in a thread of the test, over real TCP."""

import contextlib
import threading
from collections.abc import Iterator

from charles.town.server import TownServer
from charles.town.server_config import ServerFaults, TownServerConfig
from charles.town.zmq_server import ZmqTownServer


@contextlib.contextmanager
def serving(faults: ServerFaults | None = None, **settings) -> Iterator[TownServer]:
    """A server on a free port, almost without traffic; stopped, and seen to stop, at the end."""
    with running(TownServer(config_of(faults, settings))) as server:
        yield server


@contextlib.contextmanager
def serving_zmq(faults: ServerFaults | None = None, **settings) -> Iterator[ZmqTownServer]:
    """The same as the ZeroMQ fork."""
    with running(ZmqTownServer(config_of(faults, settings))) as server:
        yield server


def config_of(faults, settings) -> TownServerConfig:
    settings = {"vehicles": 0, "pedestrians": 0, "port": 0, "seed": 3} | settings
    return TownServerConfig(faults=faults or ServerFaults(), **settings)


@contextlib.contextmanager
def running(server):
    """Run a server until the end, and see it stop."""
    stop = threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join(60.0)
        assert not thread.is_alive()
