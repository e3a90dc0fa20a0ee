"""Films and contact sheets of frames. A film appears under its name only when it is complete."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.error import FFmpegError

from charles.errors import GameError, StorageError, require
from charles.files import put_in_place


class Film:
    """Writes an MP4 (H.264, yuv420p) that starts to play before it is loaded whole.

    A context manager. Frames go to a temporary file beside ``path``; leaving the context without an
    error gives it its name, replacing what was there; leaving it with one removes it.

    Args:
        path: Where the film goes; its directory is made if need be.
        height: Frame height in pixels, even.
        width: Frame width in pixels, even.
        fps: Frames per second.

    Raises:
        ConfigError: A size is not even and positive, or ``fps`` not positive.
        StorageError: The file cannot be written.

    Example:
        with Film("drive.mp4", height=270, width=480, fps=30.0) as film:
            film.add(frame)
    """

    def __init__(self, path: str | Path, *, height: int, width: int, fps: float) -> None:
        for name, size in (("height", height), ("width", width)):
            require(size > 0 and size % 2 == 0, name, "be even and positive", size)
        require(fps > 0, "fps", "be positive", fps)
        self.path = Path(path)
        self.num_frames = 0
        self._shape = (height, width, 3)
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            options = {"movflags": "faststart"}
            self._container = av.open(str(self._partial), "w", format="mp4", options=options)
        except (OSError, FFmpegError) as err:
            raise self._error(err) from err
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "21", "preset": "veryfast"}

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, RGB uint8 ``[H, W, 3]``. Blocks while it is encoded.

        Raises:
            GameError: The frame has another shape or type.
            StorageError: The disk is full or the file cannot be written.
        """
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise GameError(
                f"Expected a frame as uint8 {list(self._shape)}, "
                f"got {frame.dtype} {list(frame.shape)}."
            )
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        try:
            self._container.mux(self._stream.encode(picture))
        except (OSError, FFmpegError) as err:
            raise self._error(err) from err
        self.num_frames += 1

    def __enter__(self) -> "Film":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if kind is None:
                put_in_place(self._partial, self.path)
        except (OSError, FFmpegError) as err:
            if kind is None:
                raise self._error(err) from err
        finally:
            self._partial.unlink(missing_ok=True)

    def _error(self, err: Exception) -> StorageError:
        reason = getattr(err, "strerror", None) or str(err)
        return StorageError(
            f"film path must be writable, got {str(self.path)!r} ({reason}). "
            "Choose another path or free some space."
        )


def contact_sheet(frames: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Frames of one size side by side, row by row.

    Args:
        frames: At least one, each uint8 ``[H, W, 3]``.
        columns: Frames per row.

    Returns:
        uint8 ``[rows * H, columns * W, 3]``; places without a frame are black.

    Raises:
        ConfigError: There is no frame, or ``columns`` is not positive.
    """
    require(columns > 0, "columns", "be positive", columns)
    require(len(frames) > 0, "frames", "hold at least one frame", len(frames))
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // columns)
    sheet = np.zeros((rows, height, columns, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        sheet[i // columns, :, i % columns] = frame
    return sheet.reshape(rows * height, columns * width, 3)
