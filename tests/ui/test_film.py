"""Films and contact sheets."""

import signal
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from charles.errors import ConfigError, GameError, StorageError
from charles.ui.film import Film, contact_sheet

HEIGHT, WIDTH, FPS = 90, 160, 30.0


def make_frame(grey: int) -> np.ndarray:
    frame = np.full((HEIGHT, WIDTH, 3), grey, np.uint8)
    frame[:, : WIDTH // 2, 0] = 255
    return frame


def write(path: Path, count: int = 20) -> None:
    with Film(path, height=HEIGHT, width=WIDTH, fps=FPS) as film:
        for i in range(count):
            film.add(make_frame(10 * i))


def test_film_plays_back_what_was_added(tmp_path):
    write(tmp_path / "new" / "drive.mp4")
    with av.open(str(tmp_path / "new" / "drive.mp4")) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == FPS
        frames = [picture.to_ndarray(format="rgb24") for picture in film.decode(stream)]
    assert len(frames) == 20
    for i, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - make_frame(10 * i))[:, 90:].mean() < 6
        assert frame[40, 20, 0] > 230, "red stays red"


def test_film_starts_to_play_before_it_is_loaded_whole(tmp_path):
    write(tmp_path / "drive.mp4")
    content = (tmp_path / "drive.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_film_has_its_name_only_when_it_is_complete(tmp_path):
    path = tmp_path / "drive.mp4"
    path.write_bytes(b"old")
    with Film(path, height=HEIGHT, width=WIDTH, fps=FPS) as film:
        film.add(make_frame(0))
        assert path.read_bytes() == b"old"
    assert path.read_bytes() != b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["drive.mp4"]


def write_and_crash(path: Path) -> None:
    with Film(path, height=HEIGHT, width=WIDTH, fps=FPS) as film:
        film.add(make_frame(0))
        raise RuntimeError("the game crashed")


def test_failed_film_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="the game crashed"):
        write_and_crash(tmp_path / "drive.mp4")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_path_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"film path must be writable, got .*file.+drive\.mp4"):
        Film(tmp_path / "file" / "drive.mp4", height=HEIGHT, width=WIDTH, fps=FPS)


@pytest.fixture
def _small_disk() -> Iterator[None]:
    """No file of this process may grow beyond 20 kB."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def write_noise(path: Path) -> None:
    rng = np.random.default_rng(0)
    with Film(path, height=HEIGHT, width=WIDTH, fps=FPS) as film:
        for _ in range(60):
            film.add(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


@pytest.mark.usefixtures("_small_disk")
def test_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path):
    with pytest.raises(StorageError, match="film path must be writable"):
        write_noise(tmp_path / "drive.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sizes", [(91, 160), (90, 161), (0, 160)])
def test_sizes_that_the_format_cannot_hold_are_refused(tmp_path, sizes):
    with pytest.raises(ConfigError, match="must be even and positive"):
        Film(tmp_path / "drive.mp4", height=sizes[0], width=sizes[1], fps=FPS)


def test_frame_of_another_shape_is_refused(tmp_path):
    with Film(tmp_path / "drive.mp4", height=HEIGHT, width=WIDTH, fps=FPS) as film:
        film.add(make_frame(0))
        with pytest.raises(GameError, match=r"Expected a frame as uint8 \[90, 160, 3\]"):
            film.add(np.zeros((WIDTH, HEIGHT, 3), np.uint8))


def test_contact_sheet_fills_row_by_row():
    frames = [np.full((2, 3, 3), 10 * (i + 1), np.uint8) for i in range(3)]
    sheet = contact_sheet(frames, columns=2)
    assert sheet.shape == (4, 6, 3)
    assert [sheet[0, 0, 0], sheet[0, 3, 0], sheet[2, 0, 0], sheet[2, 3, 0]] == [10, 20, 30, 0]


def test_contact_sheet_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="frames must hold at least one frame"):
        contact_sheet([], columns=2)
