"""Fixtures for every test: nothing may be left behind."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from charles.data.shm import PREFIX, ProcessIdentity, block_dir, owner_of

GRACE_S = 3.0


def _blocks() -> set[str]:
    """Blocks of this process, and blocks that nobody living owns."""
    names = {path.name for path in block_dir().glob(f"{PREFIX}*")}
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    kept = set()
    for name in names:
        owner = owner_of(name)
        if owner is None or owner.pid == me.pid or not owner.is_alive():
            kept.add(name)
    return kept


def _children() -> set[str]:
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(child.cmdline())
            # One per session, started by the standard library, ends by itself.
            if "multiprocessing.resource_tracker" not in command:
                found.add(f"{child.pid} {command}")
    return found


def _sockets() -> set[str]:
    connections = psutil.Process().net_connections(kind="inet")
    return {f"{one.fd} {one.laddr} {one.status}" for one in connections}


LEAKS: dict[str, Callable[[], set[str]]] = {
    "shared-memory blocks": _blocks,
    "child processes": _children,
    "sockets": _sockets,
}


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaks a shared-memory block, a child process or a socket."""
    before = {name: look() for name, look in LEAKS.items()}
    yield
    deadline_s = time.monotonic() + GRACE_S
    left = {name: look() - before[name] for name, look in LEAKS.items()}
    while any(left.values()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
        left = {name: look() - before[name] for name, look in LEAKS.items()}
    leaks = {name: sorted(found) for name, found in left.items() if found}
    assert not leaks, f"The test left behind: {leaks}"
