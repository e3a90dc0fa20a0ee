"""Fixtures for every test: nothing may be left behind. Tests and their processes start quickly."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import psutil
import pytest

from charles.data.shm import PREFIX, ProcessIdentity, block_dir, owner_of

GRACE_S = 3.0


def _start_quickly() -> None:
    """Spend on starting and compiling as little as can be, here and in every process of a test.

    Tests run few steps of tiny networks: optimising them takes many times longer than running
    them. To test what users run instead, set both variables yourself::

        JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= python -m pytest
    """
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    # The emitters of fused loops take half of what is left. XLA ends a process over a flag that it
    # does not know, so versions that were not tried do without.
    if metadata.version("jaxlib").startswith("0.10."):
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
    # Where no byte code is kept, JAX and Flax are compiled anew in every process: 5 s each.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


_start_quickly()  # before anything imports JAX

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
"""Name of this process among those that share the tests; empty if it runs all of them."""


def _keep_apart() -> Path | None:
    """Give this worker and its processes blocks of their own, where the system has a place.

    Else the starts of the other worker's processes would remove what a test left on purpose, and
    what they leave would count as this one's leak.
    """
    if not WORKER or not Path("/dev/shm").is_dir():
        return None
    for left in Path("/dev/shm").glob("tests-*-pid*"):  # by a worker that was killed
        if not psutil.pid_exists(int(left.name.rpartition("pid")[2])):
            shutil.rmtree(left, ignore_errors=True)
    folder = f"/dev/shm/tests-{WORKER}-pid{os.getpid()}"
    os.mkdir(folder, 0o700)
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    return Path(folder)


def pytest_configure(config: pytest.Config) -> None:
    """Begin as a worker."""
    folder = _keep_apart()
    if folder is not None:
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


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


def _pids_below(pid: int) -> list[int]:
    """Processes that a process has started, and theirs."""
    lists = list(Path(f"/proc/{pid}/task").glob("*/children"))
    if not lists:  # not Linux: looks at every process of the system
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    found = []
    for each in lists:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread has ended
            found += map(int, each.read_text().split())
    for child in list(found):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += _pids_below(child)
    return found


def _children() -> set[str]:
    found = set()
    for pid in _pids_below(os.getpid()):
        with contextlib.suppress(psutil.NoSuchProcess):
            child = psutil.Process(pid)
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


@pytest.fixture(autouse=True)
def _tests_stay_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer within a test must not lower this process's priority: there is no way back."""
    monkeypatch.setattr("os.setpriority", lambda *_: None, raising=False)


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let XLA optimise as it does for users, here and in the processes of this test."""
    import jax

    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    monkeypatch.setenv(name.upper(), "0")
    jax.config.update(name, False)
    jax.clear_caches()  # what other tests compiled in this process would be used on
    yield
    jax.config.update(name, before)
    jax.clear_caches()
