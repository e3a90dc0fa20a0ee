import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from charles.data.buffers import NOT_STORED
from charles.data.storage import Storage
from charles.errors import StorageError
from charles.sample import SampleSpec

SPEC = SampleSpec(height=16, width=16, history_length=3)
LARGE = SampleSpec(height=270, width=480, pixel_format="rgb", history_length=3)
"""So large that a kill often falls into the middle of a write."""
NAMES = ("acceleration_braking", "steering")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def make_sample(number, spec=SPEC):
    header = np.zeros(1, spec.header_dtype)[0]
    header["begin"] = header["end"] = 1
    header["frame_index"] = number
    header["history"][:] = number
    return header, np.full(spec.pixels_shape, number % 251, np.uint8)


def is_stamped(sample):
    number = int(sample.header["frame_index"])
    same = (sample.header["history"] == number).all()
    return same and (sample.pixels == number % 251).all() and sample.output == number % 2


@pytest.fixture
def opened(tmp_path):
    """Opens the storage of one directory, any number of times, one after the other."""
    storages = []

    def open_storage(spec=SPEC, names=NAMES, **settings):
        for storage in storages:
            storage.close()
        storages.append(Storage(tmp_path / "samples", spec, names, **settings))
        return storages[-1]

    yield open_storage
    for storage in storages:
        storage.close()


def add(storage, numbers):
    ids = [storage.add(number % 2, *make_sample(number)) for number in numbers]
    assert storage.flush()
    return ids


def test_samples_come_back_whole_and_in_order_after_a_restart(opened):
    ids = add(opened(), range(20))
    again = opened()
    samples = list(again.load())
    assert [sample.id for sample in samples] == ids == sorted(ids)
    assert [int(sample.header["frame_index"]) for sample in samples] == list(range(20))
    assert all(is_stamped(sample) for sample in samples)
    assert again.torn == []


def test_ids_rise_over_restarts_and_are_never_given_twice(opened):
    storage = opened()
    first = add(storage, range(3))
    storage.forget(first)
    storage.commit()
    second = add(opened(), range(3))
    assert min(second) > max(first)
    storage = opened()
    (storage.directory / "layout.json").unlink()  # even if somebody deletes it
    third = add(opened(), range(3))
    assert min(third) > max(second)


def test_sample_is_copied_before_its_slot_is_used_again(opened):
    storage = opened()
    header, pixels = make_sample(4)
    storage.add(0, header, pixels)
    pixels[:] = 0
    header["frame_index"] = 0
    assert storage.flush()
    assert is_stamped(next(storage.load()))


def test_forgotten_samples_stay_until_the_commit_of_the_checkpoint_that_forgot_them(opened):
    storage = opened()
    ids = add(storage, range(6))
    storage.forget(ids[:2])
    mark = storage.mark()
    storage.forget(ids[2:4])  # after the checkpoint's state was taken
    assert storage.flush()
    assert [sample.id for sample in storage.load()] == ids
    storage.commit(mark)
    assert storage.flush()
    assert [sample.id for sample in storage.load()] == ids[2:]
    storage.commit(mark)  # a second time changes nothing
    assert storage.flush()
    assert [sample.id for sample in storage.load()] == ids[2:]
    storage.commit()
    assert storage.flush()
    assert [sample.id for sample in storage.load()] == ids[4:]


def test_sample_that_is_forgotten_before_it_was_written_does_not_stay(opened):
    storage = opened()
    ids = [storage.add(0, *make_sample(number)) for number in range(50)]
    storage.forget(ids)
    storage.commit()
    assert storage.flush()
    assert list(storage.load()) == []


def test_nothing_grows_for_ever_without_a_commit(opened):
    storage = opened(max_forgotten=5)
    for number in range(100):
        storage.forget(add(storage, [number]))
    assert storage.flush()
    assert len(list(storage.load())) == 5


def test_full_queue_skips_and_counts(opened):
    storage = opened(queue_bytes=1)  # room for one sample
    ids = [storage.add(number % 2, *make_sample(number)) for number in range(300)]
    assert storage.flush()
    stored = [one for one in ids if one != NOT_STORED]
    assert storage.skipped == ids.count(NOT_STORED) > 0
    assert [sample.id for sample in storage.load()] == stored
    storage.forget([NOT_STORED])
    assert storage.mark() == 0


def test_torn_truncated_and_garbage_files_are_counted_and_deleted_never_loaded(opened):
    storage = opened()
    ids = add(storage, range(6))
    paths = sorted(storage.directory.glob("*.sample"))
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[:-1])
    paths[1].write_bytes(b"")
    paths[2].write_bytes(b"garbage" * 1000)
    for path, at in ((paths[3], 40), (paths[4], len(data) - 1)):  # one bit of header, of pixels
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
    (storage.directory / "0000000000000077.tmp").write_bytes(b"half")
    storage = opened()
    assert [sample.id for sample in storage.load()] == ids[5:]
    assert storage.torn == [path.name for path in paths[:5]]
    assert [path.name for path in storage.directory.glob("*.sample")] == [paths[5].name]
    assert not list(storage.directory.glob("*.tmp"))


def test_samples_of_another_layout_are_refused_by_field_and_left_alone(opened):
    storage = opened()
    add(storage, range(2))
    other = SampleSpec(height=16, width=32, history_length=3)
    with pytest.raises(StorageError, match=r"sample\.width must be 32 .* got 16"):
        opened(other)
    with pytest.raises(StorageError, match="outputs must be"):
        opened(names=("steering",))
    assert len(list(opened().load())) == 2


def test_file_copied_from_another_run_is_refused_and_left_alone(opened, tmp_path):
    other = Storage(tmp_path / "other", SampleSpec(height=16, width=32), NAMES)
    other.add(0, *make_sample(1, other.spec))
    assert other.flush()
    other.close()
    storage = opened()
    (source,) = other.directory.glob("*.sample")
    copied = storage.directory / source.name
    copied.write_bytes(source.read_bytes())
    with pytest.raises(StorageError, match=f"{copied.name} must have version 1 and layout"):
        list(storage.load())
    assert copied.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense", '{"session": "x"}'])
def test_broken_description_is_refused(opened, content):
    storage = opened()
    storage.close()
    (storage.directory / "layout.json").write_text(content)
    with pytest.raises(StorageError, match=r"layout\.json must be the description"):
        opened()
    if content == "":
        (storage.directory / "layout.json").write_text(json.dumps({"session": 4}))
        with pytest.raises(StorageError, match="got None"):
            opened()


def test_directory_in_use_or_unusable_is_refused(opened, tmp_path):
    storage = opened()
    with pytest.raises(StorageError, match="one trainer, got a second one"):
        Storage(storage.directory, SPEC, NAMES)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="directory that can be written"):
        Storage(tmp_path / "file", SPEC, NAMES)


def write_without_end(directory):
    """Add, forget, commit, and tell what is acknowledged and what may be gone, until killed."""
    storage = Storage(directory, LARGE, NAMES)
    number, ids = 0, []
    while True:
        ids.append(storage.add(number % 2, *make_sample(number, LARGE)))
        number += 1
        if number % 8 == 0:
            print("have", storage.acknowledged, flush=True)
        if len(ids) > 40:
            print("forget", ids[0], flush=True)
            storage.forget(ids[:1])
            del ids[:1]
        if number % 64 == 0:
            storage.commit()
            storage.flush()


def test_every_acknowledged_sample_survives_kills_of_the_writer(opened, tmp_path):
    rng = np.random.default_rng(0)
    expected = set()
    (tmp_path / "samples").mkdir()
    for _ in range(6):
        command = [sys.executable, __file__, str(tmp_path / "samples")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        lines = [process.stdout.readline() for _ in range(int(rng.integers(1, 25)))]
        process.kill()
        lines += process.communicate()[0].splitlines()
        words = [line.split() for line in lines if len(line.split()) == 2]
        acknowledged = max(int(number) for word, number in words if word == "have")
        forgotten = [int(number) for word, number in words if word == "forget"]
        storage = opened(LARGE)
        samples = list(storage.load())
        assert storage.torn == []
        assert all(is_stamped(sample) for sample in samples)
        found = {sample.id for sample in samples}
        assert expected <= found  # nothing of earlier sessions is gone
        if acknowledged != NOT_STORED:  # it may be killed before its first sample is on disk
            first = acknowledged >> 40 << 40
            assert set(range(first, acknowledged + 1)) - set(forgotten) <= found
        expected |= found
        storage.close()
    assert len(expected) > 8


def fill_the_disk(directory, limit_bytes):
    """Add samples until the copy ends, then go on; prints what happened."""
    import resource

    storage = Storage(directory, SPEC, NAMES)
    count = 0
    if limit_bytes:
        add(storage, range(5))
        count = 5
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    while not storage.is_failed and count < 100_000:
        storage.add(count % 2, *make_sample(count))
        storage.flush()
        count += 1
    assert storage.add(0, *make_sample(0)) == NOT_STORED
    found = list(storage.load())
    assert found
    assert all(is_stamped(sample) for sample in found)
    assert len(found) == count - 1
    assert not list(storage.directory.glob("*.tmp"))
    storage.forget([found[0].id])
    storage.commit()
    assert storage.flush()
    assert len(list(storage.load())) == len(found) - 1
    storage.close()
    print(storage.failure)


@pytest.mark.parametrize("kind", ["limit", "tmpfs"])
def test_full_disk_ends_the_copy_with_numbers_and_what_is_there_stays(tmp_path, kind):
    script = [sys.executable, __file__, str(tmp_path / "samples")]
    if kind == "limit":
        pytest.importorskip("resource")
        command = [*script, "300"]
    else:
        mount = f"mount -t tmpfs -o size=200k tmpfs {tmp_path} && exec"
        command = ["unshare", "-rm", "sh", "-c", f"{mount} {' '.join(script)} 0"]
        probe = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs tmpfs {tmp_path}"]
        try:
            subprocess.run(probe, check=True, capture_output=True, timeout=10)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"a file system of our own cannot be mounted here: {error}")
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 0, done.stderr
    reason = {"limit": "File too large", "tmpfs": "No space left on device"}[kind]
    assert re.search(rf"ended: {reason}\. A sample needs \d+ bytes, [\d,]+ are free", done.stdout)
    assert "set data.is_stored=False" in done.stdout


if __name__ == "__main__":
    if len(sys.argv) > 2:
        fill_the_disk(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        write_without_end(Path(sys.argv[1]))


def test_what_a_checkpoint_still_needs_goes_one_commit_later(opened):
    storage = opened()
    ids = [storage.add(0, *make_sample(number)) for number in range(3)]
    storage.forget(ids)
    mark = storage.mark()
    storage.commit(mark, spare={ids[1]})
    assert storage.flush()
    assert [sample.id for sample in storage.load()] == [ids[1]]
    storage.commit(storage.mark())
    assert storage.flush()
    assert not list(storage.load())
