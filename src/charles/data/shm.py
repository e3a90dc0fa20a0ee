"""Blocks of shared memory, each with one owner.

A block is a file in the system's directory in memory, mapped by every process that uses it. It
starts with a small header (magic, version, the owner's process id and start time, size), so that
anyone can tell whether the owner lives. Invariants:

* One process creates a block, owns it and removes its name; those who attach never do.
* A block is written to only after all of its pages were reserved: on a full system creation fails
  with numbers, instead of a later write killing the process (SIGBUS).
* No block outlives its owner for good: a normal exit removes it at once, and one that was left by
  a killed owner is found by :func:`remove_stale` at the next start.

Python's ``multiprocessing.shared_memory`` is not used: before Python 3.13 its resource tracker
removes a block when a process that merely attached exits, and it reserves nothing.
"""

import atexit
import contextlib
import mmap
import os
import secrets
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from charles.errors import SharedMemoryError

PREFIX = "charles-"
"""Every block's name starts with this."""

RESERVE_BYTES = 256 * 1024**2
"""Memory that a new block must leave to everything else."""

HEADER_BYTES = 64

_MAGIC = b"CHARLES\0"
_VERSION = 1
_HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", np.uint32),
        ("pid", np.uint32),
        ("started_s", np.float64),
        ("num_bytes", np.uint64),
        ("is_closed", np.uint32),
    ]
)
_BINARY = os.O_BINARY if sys.platform == "win32" else 0
_IN_MEMORY = os.O_SHORT_LIVED if sys.platform == "win32" else 0
"""Windows then keeps a file's pages in memory where it can."""
_owned: set[Path] = set()


def block_dir() -> Path:
    """Where blocks lie: a directory in memory on Linux, the temporary directory elsewhere.

    Where the temporary directory (``TMPDIR``) is itself in memory, below ``/dev/shm``, blocks lie
    there: its processes see no others' blocks, and leave them alone.
    """
    in_memory, temporary = Path("/dev/shm"), Path(tempfile.gettempdir())
    is_outside = in_memory.is_dir() and not temporary.is_relative_to(in_memory)
    return in_memory if is_outside else temporary


def unique_name(role: str) -> str:
    """A name for a new block that no other block has, for example ``charles-pool-4711-9f3c2a``."""
    return f"{PREFIX}{role}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from a later one that got the same number."""

    pid: int
    started_s: float
    """When it started, in seconds after boot: a clock that nobody adjusts. On Windows, where the
    time of boot follows from the clock, by the clock."""

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """The process that has this number now; ``None`` if there is none but a zombie."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            boot_s = 0.0 if sys.platform == "win32" else psutil.boot_time()
            return cls(pid, process.create_time() - boot_s)
        except psutil.NoSuchProcess:
            return None

    def is_alive(self) -> bool:
        """Whether this very process still runs. Takes some tens of microseconds."""
        now = ProcessIdentity.of(self.pid)
        return now is not None and abs(now.started_s - self.started_s) < 1.0


class Block:
    """One block of shared memory; made by :meth:`create` or :meth:`attach`.

    Attributes:
        name: Name of the block, unique on this host.
        num_bytes: Bytes that a user may use.
        owner: The process that created it.
    """

    def __init__(self, name: str, mapping: mmap.mmap, *, is_owner: bool) -> None:
        self.name = name
        self._mapping: mmap.mmap | None = mapping
        self._header: np.ndarray | None = np.frombuffer(mapping, _HEADER, count=1)
        self._buffer: memoryview | None = memoryview(mapping)[HEADER_BYTES:]
        self.is_owner = is_owner
        self._is_removed = False
        self.num_bytes = int(self._header["num_bytes"][0])
        self.owner = ProcessIdentity(
            int(self._header["pid"][0]), float(self._header["started_s"][0])
        )

    @classmethod
    def create(cls, name: str, num_bytes: int) -> Self:
        """Make a block of zeros, owned by this process. Touches every page, so it may take seconds.

        Args:
            name: Starts with :data:`PREFIX`; :func:`unique_name` gives one.
            num_bytes: Bytes that users of the block need.

        Raises:
            SharedMemoryError: The name is taken, or there is too little memory.
        """
        if not name.startswith(PREFIX) or num_bytes <= 0:
            raise SharedMemoryError(
                f"A block must be named '{PREFIX}...' and have 1 byte or more, "
                f"got {name!r} and {num_bytes} bytes."
            )
        _check_space(name, num_bytes)
        path = block_dir() / name
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY | _IN_MEMORY, 0o600)
        except FileExistsError as err:
            raise SharedMemoryError(
                f"The name of a new block must be free, got {name!r}, which exists. "
                "Is another trainer running under this name?"
            ) from err
        try:
            try:
                os.write(fd, _make_header(num_bytes))
                _reserve(fd, name, HEADER_BYTES + num_bytes)
                mapping = mmap.mmap(fd, HEADER_BYTES + num_bytes)
            finally:
                os.close(fd)  # first: Windows keeps the name of what is open
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        _owned.add(path)
        return cls(name, mapping, is_owner=True)

    @classmethod
    def attach(cls, name: str) -> Self:
        """Map a block that another process owns; never removes it.

        Raises:
            SharedMemoryError: There is no such block, or it is not one of this version.
        """
        try:
            fd = os.open(block_dir() / name, os.O_RDWR | _BINARY)
        except FileNotFoundError as err:
            raise SharedMemoryError(
                f"Block {name!r} must exist, got none. Its owner has ended; connect again."
            ) from err
        try:
            header = _read_header(fd)
            size = os.fstat(fd).st_size
            if header is None or size != HEADER_BYTES + int(header["num_bytes"]):
                raise SharedMemoryError(
                    f"Block {name!r} must be a Charles block of version {_VERSION} and of the size "
                    f"its header tells, got {size} bytes with header {header}. "
                    "Do both processes run the same version?"
                )
            mapping = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        return cls(name, mapping, is_owner=False)

    @property
    def buffer(self) -> memoryview:
        """The bytes ``[num_bytes]``, 64-byte aligned."""
        if self._buffer is None:
            raise SharedMemoryError(f"Block {self.name!r} must be open, got a closed one.")
        return self._buffer

    def is_owner_alive(self) -> bool:
        """Whether the owner still runs and has not closed the block."""
        is_closed = self._header is None or bool(self._header["is_closed"][0])
        return not is_closed and self.owner.is_alive()

    def close(self) -> None:
        """Let go of the memory. Arrays made from ``buffer`` stay valid until they are dropped."""
        self._header = self._buffer = None
        if self._mapping is not None:
            # Arrays may still point into the mapping; then it goes with the last of them.
            with contextlib.suppress(BufferError):
                self._mapping.close()
            self._mapping = None
        if self._is_removed:
            _remove(block_dir() / self.name)

    def unlink(self) -> None:
        """Remove the name, and tell those attached that the owner is gone. Owner only.

        Windows keeps the name while anybody maps the block: it goes when this process closes it, or
        ends.

        Raises:
            SharedMemoryError: This process only attached to the block.
        """
        if not self.is_owner:
            raise SharedMemoryError(f"Block {self.name!r} must be removed by its owner.")
        if self._header is not None:
            self._header["is_closed"] = 1
        self._is_removed = True
        _remove(block_dir() / self.name)


def remove_stale(prefix: str = PREFIX) -> list[str]:
    """Remove every block whose owner is dead; those of live owners stay.

    Args:
        prefix: Which blocks to look at; starts with :data:`PREFIX`.

    Returns:
        Names of the removed blocks.
    """
    removed = []
    for path in sorted(block_dir().glob(f"{prefix}*")):
        # Other users' blocks cannot be opened, and blocks may vanish at any moment.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if _is_stale(path):
                path.unlink()
                removed.append(path.name)
    return removed


def owner_of(name: str) -> ProcessIdentity | None:
    """Who created a block; ``None`` if it is gone or has no header."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        fd = os.open(block_dir() / name, os.O_RDONLY | _BINARY)
        try:
            header = _read_header(fd)
        finally:
            os.close(fd)
        if header is not None:
            return ProcessIdentity(int(header["pid"]), float(header["started_s"]))
    return None


def _is_stale(path: Path) -> bool:
    """Whether nobody owns a block. One without a header gets a moment: it may be in the making."""
    for _ in range(10):
        fd = os.open(path, os.O_RDONLY | _BINARY)
        try:
            header = _read_header(fd, any_version=True)
        finally:
            os.close(fd)
        if header is not None:
            return not ProcessIdentity(int(header["pid"]), float(header["started_s"])).is_alive()
        time.sleep(0.02)
    return True


def _make_header(num_bytes: int) -> bytes:
    me = ProcessIdentity.of(os.getpid())
    assert me is not None  # this process runs
    header = np.array((_MAGIC, _VERSION, me.pid, me.started_s, num_bytes, 0), _HEADER)
    return header.tobytes().ljust(HEADER_BYTES, b"\0")


def _read_header(fd: int, *, any_version: bool = False) -> np.void | None:
    """The header of an open block; ``None`` if it has none of this version, or of any: magic and
    owner are at the same place in all of them."""
    os.lseek(fd, 0, os.SEEK_SET)
    data = os.read(fd, _HEADER.itemsize)
    if len(data) < _HEADER.itemsize:
        return None
    header = np.frombuffer(data, _HEADER)[0]
    is_known = any_version or header["version"] == _VERSION
    return header if header["magic"] == _MAGIC.rstrip(b"\0") and is_known else None


def _available_bytes() -> tuple[int, str]:
    """What a new block may take at most, and what limits it."""
    limits = [
        (shutil.disk_usage(block_dir()).free, f"free in {block_dir()}"),
        (psutil.virtual_memory().available - RESERVE_BYTES, "available memory less a reserve"),
    ]
    with contextlib.suppress(OSError, ValueError):  # a container may hold less than the machine
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        limits.append((limit - RESERVE_BYTES, "memory limit of this container less a reserve"))
    return min(limits)


def _check_space(name: str, num_bytes: int) -> None:
    available, what = _available_bytes()
    if HEADER_BYTES + num_bytes > available:
        raise _too_little(name, num_bytes, available, what)


def _too_little(name: str, num_bytes: int, available: int, what: str) -> SharedMemoryError:
    mib = 1024**2
    return SharedMemoryError(
        f"Block {name!r} needs {num_bytes / mib:,.1f} MiB, got {max(available, 0) / mib:,.1f} MiB "
        f"({what}). Use smaller buffers (data.buffer_capacity), frame.pixel_format=yuv420, smaller "
        "frames, or fewer collectors; in a container give more shared memory (docker: --shm-size)."
    )


def _reserve(fd: int, name: str, num_bytes: int) -> None:
    """Give the open file its size and, where the system can, all of its pages."""
    try:
        if sys.platform == "linux":
            os.posix_fallocate(fd, 0, num_bytes)
        else:
            os.truncate(fd, num_bytes)
    except OSError as err:
        available, what = _available_bytes()
        raise _too_little(name, num_bytes, available, f"{what}; {err.strerror}") from err


def _remove(path: Path) -> None:
    """Remove an own block's name, unless Windows keeps it because somebody maps the block."""
    if path in _owned:
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)
            _owned.discard(path)


def _remove_owned() -> None:
    """What others map even now is stale at the next start."""
    for path in list(_owned):
        _remove(path)


# A normal exit leaves nothing, even where an error kept the owner from its ``finally``. Children
# are spawned, so no other process runs this with the same set.
atexit.register(_remove_owned)
