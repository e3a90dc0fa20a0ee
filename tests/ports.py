"""Ports for the tests of what listens."""

import os
import socket
from itertools import count

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST, EACH = 20_000, 2_000
"""Below those that systems give out by themselves, and other ones for each worker."""

_turns = count(os.getpid())


def free_port() -> int:
    """A port of this host that nothing listens on, and that no other test is given soon."""
    for turn in _turns:
        port = FIRST + EACH * WORKER + turn % EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError  # turns do not end
