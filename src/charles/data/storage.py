"""The disk copy: every buffered sample as a file of its own, so that a restart refills at once.

What can be relied upon:

* A sample is *acknowledged* once its file has its final name; that happens in the writer's thread,
  shortly after :meth:`Storage.add`, in order (``acknowledged`` tells the newest). From then on no
  kill of the process loses it; a power cut may lose those of the last seconds.
* A file is complete or not there: it is written under a temporary name and then renamed. A check
  sum finds what a power cut left torn; that is counted, reported and deleted, never loaded.
* A forgotten sample stays on disk until :meth:`Storage.commit`, so that a resume from the newest
  checkpoint finds every sample that it knew.
* Nothing grows for ever: the queue to the writer is bounded (what does not fit is skipped and
  counted), and so are the forgotten samples that wait for a commit.
* A full disk ends the copy, not the training: ``failure`` says why, with numbers, and what is
  there stays readable.

Ids rise over all sessions and are never given twice: the session's number stands in the high bits.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import struct
import sys
import threading
import zlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from charles.data.buffers import NOT_STORED
from charles.errors import StorageError
from charles.files import put_in_place
from charles.sample import SampleSpec

_MAGIC = b"CHARLSMP"
_VERSION = 1
_PREAMBLE = struct.Struct("<8sIIqII")
_SESSION_BITS = 40


class StoredSample(NamedTuple):
    """One sample as read from disk."""

    id: int
    output: int
    """Number of the output it was picked for."""
    header: np.void
    """Record of the sample's ``header_dtype``."""
    pixels: np.ndarray
    """uint8 of the sample's ``pixels_shape``, read-only."""


class _Write(NamedTuple):
    id: int
    output: int
    header: bytes
    pixels: np.ndarray


class Storage:
    """The rotating disk copy of one run's samples. Its methods never wait for the disk but where
    they say so; any thread may call them. Close it.

    Args:
        directory: Where the files go; made if it is not there.
        spec: Shape of the samples.
        outputs: Names of the outputs, in order.
        queue_bytes: Samples waiting for the writer take at most this much memory.
        max_forgotten: Most forgotten samples that wait for a commit; beyond, the oldest go early.

    Attributes:
        skipped: Samples that were not copied because the queue was full.
        torn: Names of the torn files that :meth:`load` found and deleted.
        acknowledged: Id of the newest sample of this session on disk, and so of all before it.
        failure: Why the copy ended; ``None`` while it goes on.

    Raises:
        StorageError: The directory cannot be used, is in use, or holds samples of another layout.
    """

    def __init__(
        self,
        directory: Path,
        spec: SampleSpec,
        outputs: tuple[str, ...] = (),
        *,
        queue_bytes: int = 256 * 1024**2,
        max_forgotten: int = 50_000,
    ) -> None:
        self.directory = Path(directory)
        self.spec = spec
        self.skipped = 0
        self.torn: list[str] = []
        self.acknowledged = NOT_STORED
        self.failure: StorageError | None = None
        layout = _layout_of(spec, outputs)
        self._fingerprint = zlib.crc32(json.dumps(layout, sort_keys=True).encode())
        self._lock_file = _open_directory(self.directory)
        try:
            session = _begin_session(self.directory, layout)
        except BaseException:
            os.close(self._lock_file)
            raise
        self._next_id = session << _SESSION_BITS
        self._most = max(1, queue_bytes // (spec.pixels_bytes + spec.header_dtype.itemsize))
        self._max_forgotten = max_forgotten
        self._forgotten: deque[int] = deque()
        self._num_committed = 0
        self._work: deque[_Write | list[int]] = deque()
        self._num_done = 0
        self._is_busy = self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._thread.start()

    @property
    def is_failed(self) -> bool:
        """Whether the copy has ended because of an error."""
        return self.failure is not None

    def add(self, output: int, header: np.void, pixels: np.ndarray) -> int:
        """Copy a sample and queue it for writing. Never blocks.

        Args:
            output: Number of the output it was picked for.
            header: Record of the sample's ``header_dtype``.
            pixels: uint8 of the sample's ``pixels_shape``.

        Returns:
            Its id, or :data:`~charles.data.buffers.NOT_STORED` if the copy has ended or the writer
            is too far behind.
        """
        with self._changed:
            if self.is_failed or self._is_closing:
                return NOT_STORED
            if len(self._work) >= self._most:
                self.skipped += 1
                return NOT_STORED
            sample_id = self._next_id
            self._next_id += 1
            self._work.append(_Write(sample_id, output, header.tobytes(), pixels.copy()))
            self._changed.notify_all()
            return sample_id

    def forget(self, ids: Iterable[int] | np.ndarray) -> None:
        """Mark samples as used; their files go at the next :meth:`commit`. Never blocks."""
        with self._changed:
            self._forgotten.extend(int(one) for one in ids if one != NOT_STORED)
            self._delete_forgotten(len(self._forgotten) - self._max_forgotten)

    def mark(self) -> int:
        """A mark between what is forgotten up to now and later; give it to :meth:`commit`."""
        with self._changed:
            return self._num_committed + len(self._forgotten)

    def commit(self, mark: int | None = None, spare: Collection[int] = ()) -> None:
        """Delete files of forgotten samples, in the background. Call it once a checkpoint is safe.

        Args:
            mark: From :meth:`mark`, taken with the checkpoint's state; all by default.
            spare: Ids that the checkpoint still needs; they go at a later commit.
        """
        with self._changed:
            up_to = len(self._forgotten) if mark is None else mark - self._num_committed
            self._delete_forgotten(up_to, spare)

    def load(self) -> Iterator[StoredSample]:
        """Read all samples from disk, by rising id; torn files are deleted and counted in ``torn``.

        Raises:
            StorageError: A file is of another layout or cannot be read.
        """
        for path in sorted(self.directory.glob("*.sample")):
            try:
                sample = self._read(path)
                if sample is None:
                    self.torn.append(path.name)
                    path.unlink()
            except OSError as err:
                raise StorageError(f"{path} cannot be read: {err.strerror}.") from err
            if sample is not None:
                yield sample

    def flush(self, timeout_s: float = 60.0) -> bool:
        """Wait until everything that was asked for before this call is done.

        Returns:
            Whether it was done in time.
        """
        with self._changed:
            asked = self._num_done + self._is_busy + len(self._work)
            return self._changed.wait_for(lambda: self._num_done >= asked, timeout_s)

    def close(self) -> None:
        """Write what is queued and stop. Blocks meanwhile. May be called twice."""
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        os.close(self._lock_file)

    def _delete_forgotten(self, count: int, spare: Collection[int] = ()) -> None:
        if count > 0:
            ids = [self._forgotten.popleft() for _ in range(min(count, len(self._forgotten)))]
            self._num_committed += len(ids)
            self._forgotten.extend(one for one in ids if one in spare)
            self._work.append([one for one in ids if one not in spare])
            self._changed.notify_all()

    def _run(self) -> None:
        """The writer's thread: one piece of work after the other, in order."""
        while True:
            with self._changed:
                self._num_done += self._is_busy
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._work or self._is_closing)
                if not self._work:
                    return
                work = self._work.popleft()
                self._is_busy = True
            try:
                if isinstance(work, _Write):
                    self._write(work)
                else:
                    self._delete(work)
            except OSError as err:
                self._fail(err)

    def _delete(self, sample_ids: list[int]) -> None:
        """Delete files; one that Windows keeps because somebody reads it goes another time."""
        for sample_id in sample_ids:
            try:
                self._path(sample_id).unlink(missing_ok=True)
            except PermissionError:
                if sys.platform != "win32":
                    raise
                self.forget([sample_id])

    def _write(self, work: _Write) -> None:
        if self.is_failed:
            return
        path = self._path(work.id)
        temporary = path.with_suffix(".tmp")
        preamble = self._preamble(work)
        try:
            with open(temporary, "wb", buffering=0) as file:
                for part in (preamble, work.header, work.pixels.data.cast("B")):
                    _write_all(file.fileno(), memoryview(part))
            put_in_place(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self.acknowledged = work.id

    def _preamble(self, work: _Write) -> bytes:
        crc = _crc(work.id, work.output, work.header, work.pixels.data)
        parts = (_MAGIC, _VERSION, self._fingerprint, work.id, work.output, crc)
        return _PREAMBLE.pack(*parts)

    def _read(self, path: Path) -> StoredSample | None:
        """Read one file; ``None`` if it is torn."""
        data = path.read_bytes()
        if len(data) < _PREAMBLE.size:
            return None
        magic, version, fingerprint, *_ = _PREAMBLE.unpack_from(data)
        if magic != _MAGIC:
            return None
        if (version, fingerprint) != (_VERSION, self._fingerprint):
            raise StorageError(
                f"{path} must have version {_VERSION} and layout {self._fingerprint:08x}, got "
                f"version {version} and layout {fingerprint:08x}. It was copied from another run; "
                "move it away."
            )
        return _parse(data, self.spec)

    def _fail(self, err: OSError) -> None:
        free = shutil.disk_usage(self.directory).free
        needed = _PREAMBLE.size + self.spec.header_dtype.itemsize + self.spec.pixels_bytes
        with self._changed:
            self.failure = self.failure or StorageError(
                f"The disk copy in {self.directory} ended: {err.strerror}. A sample needs "
                f"{needed:,} bytes, {free:,} are free. Samples on disk stay; training goes on "
                "without the copy. Free some space and restart, or set data.is_stored=False."
            )

    def _path(self, sample_id: int) -> Path:
        return self.directory / f"{sample_id:016x}.sample"


def read_some(directory: Path, spec: SampleSpec, num: int) -> list[StoredSample]:
    """Up to ``num`` samples, evenly over all that a run has on disk, also while it is trained.

    Takes no lock and changes nothing. What is torn, of another layout or gone meanwhile is left
    out.
    """
    paths = sorted(directory.glob("*.sample"))
    places = np.unique(np.linspace(0, len(paths) - 1, num).round().astype(int)) if paths else []
    found: list[StoredSample] = []
    for place in places:
        with contextlib.suppress(OSError):
            data = paths[place].read_bytes()
            sample = _parse(data, spec)
            if sample is not None:
                found.append(sample)
    return found


def _parse(data: bytes, spec: SampleSpec) -> StoredSample | None:
    """A file's sample; ``None`` if the file is torn."""
    if len(data) != _PREAMBLE.size + spec.header_dtype.itemsize + spec.pixels_bytes:
        return None
    magic, _version, _fingerprint, sample_id, output, crc = _PREAMBLE.unpack_from(data)
    pixels_at = _PREAMBLE.size + spec.header_dtype.itemsize
    body = memoryview(data)
    header, pixels = body[_PREAMBLE.size : pixels_at], body[pixels_at:]
    if magic != _MAGIC or _crc(sample_id, output, header, pixels) != crc:
        return None
    record = np.frombuffer(header, spec.header_dtype)[0]
    shaped = np.frombuffer(pixels, np.uint8).reshape(spec.pixels_shape)
    return StoredSample(sample_id, output, record, shaped)


def _crc(sample_id: int, output: int, header: Any, pixels: Any) -> int:
    crc = zlib.crc32(struct.pack("<qI", sample_id, output))
    return zlib.crc32(pixels, zlib.crc32(header, crc))


def _write_all(fd: int, data: memoryview) -> None:
    """Write everything; a disk that is nearly full takes a part first and then refuses."""
    while data:
        data = data[os.write(fd, data) :]


def _layout_of(spec: SampleSpec, outputs: tuple[str, ...]) -> dict[str, Any]:
    fields = {f"sample.{name}": value for name, value in dataclasses.asdict(spec).items()}
    layout = {"version": _VERSION, "outputs": outputs, **fields}
    return json.loads(json.dumps(layout))


def _open_directory(directory: Path) -> int:
    """Make the directory, lock it for this process and clear what was never acknowledged."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock_file = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as err:
        raise StorageError(
            f"{directory} must be a directory that can be written to: {err.strerror}. "
            "Choose another run_dir."
        ) from err
    try:
        _lock(lock_file, directory)
        for path in directory.glob("*.tmp"):
            path.unlink(missing_ok=True)
    except BaseException:
        os.close(lock_file)
        raise
    return lock_file


def _lock(lock_file: int, directory: Path) -> None:
    """Hold the lock until the file is closed or this process ends, however it ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock_file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        raise StorageError(
            f"{directory} must be used by one trainer, got a second one. "
            "Choose another run_dir, or stop the other trainer."
        ) from err


def _begin_session(directory: Path, layout: dict[str, Any]) -> int:
    """Check the layout of what is there against ours, and count a new session.

    Raises:
        StorageError: They differ; the text names the field and both values.
    """
    path = directory / "layout.json"
    newest = max((path.stem for path in directory.glob("*.sample")), default="0")
    try:
        session = 1 + (int(newest, 16) >> _SESSION_BITS)
        if path.exists():
            theirs = json.loads(path.read_text(encoding="utf-8"))
            session = max(session, int(theirs.pop("session")) + 1)
            _compare(path, layout, theirs)
        temporary = directory / "layout.json.tmp"
        temporary.write_text(json.dumps({**layout, "session": session}, indent=2), encoding="utf-8")
        put_in_place(temporary, path)
    except (ValueError, KeyError, AttributeError, TypeError) as err:
        raise StorageError(
            f"{path} must be the description of stored samples, got something else ({err}). "
            "Choose another run_dir, or move this one away."
        ) from err
    except OSError as err:
        raise StorageError(f"{path} cannot be written: {err.strerror}.") from err
    return session


def _compare(path: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise StorageError(
                f"{path}: {name} must be {ours.get(name)!r} as this run is configured, got "
                f"{theirs.get(name)!r}. Use the settings of the stored samples, or another run_dir."
            )
