"""Ports for the tests of what listens."""

import socket


def free_port() -> int:
    """A port of this host that nothing listens on; another process may take it at any time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
