import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from charles.data import shm
from charles.data.shm import Block, block_dir, owner_of, remove_stale, unique_name
from charles.errors import SharedMemoryError

ATTACH = """
import sys
from charles.data.shm import Block
block = Block.attach(sys.argv[1])
print(bytes(block.buffer[:3]).decode(), block.is_owner_alive())
block.buffer[:3] = b"two"
"""

WHERE = """
from charles.data.shm import block_dir
print(block_dir())
"""

OWN = """
import sys
from charles.data.shm import Block
block = Block.create(sys.argv[1], 1000)
print("made", flush=True)
sys.stdin.read()
"""


needs_free_names = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows keeps the name of what is mapped"
)


def run_python(code: str, *arguments: str, **changed: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **changed},
    )


def test_attacher_sees_the_bytes_and_its_exit_removes_nothing():
    block = Block.create(unique_name("test"), 1000)
    block.buffer[:3] = b"one"
    for _ in range(2):  # the second finds the block after the first one's exit
        out, err = run_python(ATTACH, block.name).communicate(timeout=20)
        assert (out, err) == ("one True\n", "")
        assert bytes(block.buffer[:3]) == b"two"
        block.buffer[:3] = b"one"
    block.unlink()
    block.close()
    with pytest.raises(SharedMemoryError, match="must exist"):
        Block.attach(block.name)


def test_name_that_the_system_kept_while_the_block_was_mapped_goes_when_it_is_closed(monkeypatch):
    block = Block.create(unique_name("test"), 1000)

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "as Windows says of a file that is mapped", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        block.unlink()
    assert (block_dir() / block.name).exists()
    block.close()
    assert not (block_dir() / block.name).exists()


@needs_free_names
def test_normal_exit_of_an_owner_that_forgot_to_unlink_leaves_nothing_and_says_nothing():
    name = unique_name("test")
    process = run_python(OWN, name)
    assert process.stdout.readline() == "made\n"
    assert (block_dir() / name).exists()
    _, err = process.communicate("", timeout=20)
    assert err == ""
    assert not (block_dir() / name).exists()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="has no directory in memory")
def test_blocks_lie_in_a_temporary_directory_that_is_in_memory_and_not_in_another(tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as in_memory:
        for temporary, expected in ((in_memory, in_memory), (str(tmp_path), "/dev/shm")):
            out, err = run_python(WHERE, TMPDIR=temporary).communicate(timeout=20)
            assert (out.strip(), err) == (expected, "")


@needs_free_names
def test_block_of_a_killed_owner_stays_until_the_next_start_removes_it():
    name = unique_name("test")
    process = run_python(OWN, name)
    assert process.stdout.readline() == "made\n"
    attached = Block.attach(name)
    assert attached.is_owner_alive()
    assert remove_stale(name) == []
    process.kill()
    process.communicate()
    assert not attached.is_owner_alive()
    assert (block_dir() / name).exists()
    assert remove_stale(name) == [name]
    assert not (block_dir() / name).exists()
    assert bytes(attached.buffer[:1]) == b"\0"  # who still maps it is not disturbed
    attached.close()


def test_zombie_owner_counts_as_dead():
    name = unique_name("test")
    process = run_python(OWN, name)
    assert process.stdout.readline() == "made\n"
    process.kill()
    while owner_of(name).is_alive():
        pass  # dies at once, but is not waited for: a zombie
    assert process.returncode is None
    assert remove_stale(name) == [name]
    process.communicate()


def give_to_another_process(block):
    """Let its owner have started at another time, as one does that got the same number."""
    path = block_dir() / block.name
    data = bytearray(path.read_bytes())
    started_at = shm._HEADER.fields["started_s"][1]
    data[started_at : started_at + 8] = np.float64(block.owner.started_s - 100).tobytes()
    path.write_bytes(data)


@needs_free_names
def test_block_whose_owner_number_was_given_to_another_process_is_stale():
    block = Block.create(unique_name("test"), 10)
    give_to_another_process(block)
    assert remove_stale(block.name) == [block.name]
    block.unlink()
    block.close()


@needs_free_names
def test_block_of_another_version_is_stale_only_once_its_owner_is_gone():
    block = Block.create(unique_name("test"), 10)
    path = block_dir() / block.name
    data = bytearray(path.read_bytes())
    data[shm._HEADER.fields["version"][1]] += 1
    path.write_bytes(data)
    with pytest.raises(SharedMemoryError, match="must be a Charles block"):
        Block.attach(block.name)
    assert not remove_stale(block.name)
    give_to_another_process(block)
    assert remove_stale(block.name) == [block.name]
    block.unlink()
    block.close()


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 5000, b"x" * 5000])
def test_file_without_a_header_is_not_attached_and_is_removed_as_stale(content):
    path = block_dir() / unique_name("test")
    path.write_bytes(content)
    with pytest.raises(SharedMemoryError, match="must be a Charles block"):
        Block.attach(path.name)
    assert remove_stale(path.name) == [path.name]


def test_block_that_does_not_fit_is_refused_with_numbers_and_leaves_nothing():
    name = unique_name("test")
    with pytest.raises(SharedMemoryError, match=r"needs [\d,]+\.\d MiB, got .*yuv420") as caught:
        Block.create(name, 2**50)
    assert "1,073,741,824.0 MiB" in str(caught.value)
    assert not (block_dir() / name).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of files and no blocks")
def test_memory_that_runs_out_while_reserving_is_a_clear_error_and_leaves_nothing():
    code = """
import resource, sys
from charles.data.shm import Block
from charles.errors import SharedMemoryError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Block.create(sys.argv[1], 1_000_000)
except SharedMemoryError as error:
    print(error)
"""
    name = unique_name("test")
    out, err = run_python(code, name).communicate(timeout=20)
    assert "needs 1.0 MiB" in out, err
    assert not (block_dir() / name).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of files and no blocks")
def test_pages_are_reserved_at_creation():
    block = Block.create(unique_name("test"), 1_000_000)
    assert (block_dir() / block.name).stat().st_blocks * 512 >= 1_000_000
    block.unlink()
    block.close()


def test_taken_name_foreign_prefix_and_foreign_unlink_are_refused():
    block = Block.create(unique_name("test"), 10)
    with pytest.raises(SharedMemoryError, match="must be free"):
        Block.create(block.name, 10)
    with pytest.raises(SharedMemoryError, match="must be named"):
        Block.create("other-name", 10)
    other = Block.attach(block.name)
    with pytest.raises(SharedMemoryError, match="by its owner"):
        other.unlink()
    other.close()
    block.unlink()
    block.close()
    with pytest.raises(SharedMemoryError, match="must be open"):
        _ = block.buffer


@needs_free_names
def test_views_stay_valid_after_close():
    block = Block.create(unique_name("test"), 100)
    view = np.frombuffer(block.buffer, np.uint8)
    view[:] = 7
    block.unlink()
    block.close()
    assert view.sum() == 700
