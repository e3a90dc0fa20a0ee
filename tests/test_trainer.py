"""The live loop: trains on what real collectors send, resumes exactly, survives being killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest

from charles import presets, trainer
from charles.checkpoint import Checkpoints
from charles.config import ServerConfig
from charles.data.buffers import known_ids
from charles.data.shm import PREFIX, block_dir
from charles.data.storage import Storage
from charles.errors import ConfigError
from charles.intake import sample_spec
from charles.learner import Learner
from charles.trainer import MetricsLog, train


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_config(run_dir, **changes):
    config = replace(presets.tiny(), run_dir=run_dir, server=ServerConfig(port=free_port()))
    return replace(config, **changes)


def blocks_of(pid):
    """Shared-memory blocks that a process made; others may be running on this machine."""
    return list(block_dir().glob(f"{PREFIX}*-{pid}-*"))


def put_on_disk(config, count):
    """Samples as an earlier session would have left them."""
    spec = sample_spec(config)
    rng = np.random.default_rng(0)
    names = tuple(output.name for output in config.outputs)
    storage = Storage(config.run_dir / "samples", spec, names)
    for number in range(count):
        header = np.zeros((), spec.header_dtype)
        header["label"] = rng.uniform(-1, 1, 2)
        header["speed_mps"] = rng.uniform(0, 10)
        pixels = rng.integers(0, 256, spec.pixels_shape, dtype=np.uint8)
        storage.add(number % 2, header[()], pixels)
    assert storage.flush()
    storage.close()


def newest(config):
    """Every array of the newest checkpoint's files, by name, as bytes that compare."""
    checkpoints = Checkpoints(config.run_dir / "checkpoints")
    learner = Learner(config)
    step = checkpoints.latest()
    assert step is not None
    state, data_state = checkpoints.restore(learner.state, step)
    learner.close()
    import jax

    leaves = {str(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(state)}
    return step, leaves, data_state


def test_trains_on_what_a_collector_sends_and_leaves_nothing_behind(tmp_path):
    config = make_config(tmp_path / "run", steps=12)
    result = train(config, collectors=1, console=False, stop=threading.Event())
    assert result.steps == 12
    assert result.reason == "all steps done"
    assert Checkpoints(config.run_dir / "checkpoints").latest() == 12
    rows = (config.run_dir / "metrics.csv").read_text().splitlines()
    assert len(rows) == 13
    assert "steering_mae" in rows[0]
    assert not blocks_of(os.getpid())


def test_tensorboard_shows_how_balanced_the_buffers_are(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "PLOT_S", 0.0)
    config = make_config(tmp_path / "run", steps=3)
    put_on_disk(config, 128)
    train(config, console=False, stop=threading.Event())
    (events,) = (config.run_dir / "tensorboard").iterdir()
    assert events.read_bytes().count(b"\x89PNG\r\n") >= 1


def test_training_6_steps_is_training_2_and_resuming_twice(tmp_path):
    runs = {}
    for name, parts in {"whole": (6,), "parts": (2, 4, 6)}.items():
        data = replace(presets.tiny().data, replay_ratio=2)
        config = make_config(tmp_path / name, data=data)
        put_on_disk(config, 128)
        for number, steps in enumerate(parts):
            part = replace(config, steps=steps)
            train(part, console=False, resume=number > 0, stop=threading.Event())
        runs[name] = newest(config)
    (step, leaves, data), (other_step, other_leaves, other_data) = runs.values()
    assert step == other_step == 6
    assert leaves.keys() == other_leaves.keys()
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, other_leaves[name], err_msg=name)
    # How far the loader has drawn ahead depends on the machine; what it drew does not.
    ahead, other_ahead = int(data["num_pending"]), int(other_data["num_pending"])
    both = min(ahead, other_ahead)
    np.testing.assert_array_equal(data["pending_ids"][:both], other_data["pending_ids"][:both])
    names = ("sizes", "rng", "drawn") if ahead == other_ahead else ("sizes",)
    for name in names:
        np.testing.assert_array_equal(data[name], other_data[name], err_msg=name)


def test_a_checkpoint_comes_after_the_files_of_its_samples(tmp_path, monkeypatch):
    config = make_config(tmp_path / "run", steps=10)
    write, save, lacking = Storage._write, Learner.save, []

    def write_slowly(storage, work):
        time.sleep(0.01)
        write(storage, work)

    def save_and_look(learner, data_state):
        files = (config.run_dir / "samples").glob("*.sample")
        on_disk = {int(path.stem, 16) for path in files}
        lacking.append(len(known_ids(data_state) - on_disk))
        save(learner, data_state)

    monkeypatch.setattr(Storage, "_write", write_slowly)
    monkeypatch.setattr(Learner, "save", save_and_look)
    train(config, collectors=1, console=False, stop=threading.Event())
    assert len(lacking) >= 2
    assert not any(lacking)


def test_stopping_saves_a_checkpoint(tmp_path):
    config = make_config(tmp_path / "run", steps=10_000)
    put_on_disk(config, 128)
    config = replace(config, data=replace(config.data, replay_ratio=1000))
    stop = threading.Event()
    threading.Timer(8.0, stop.set).start()
    result = train(config, console=False, stop=stop)
    assert result.reason == "stopped"
    assert Checkpoints(config.run_dir / "checkpoints").latest() == result.steps > 0


def test_a_directory_with_checkpoints_is_not_trained_over(tmp_path):
    config = make_config(tmp_path / "run", steps=1)
    put_on_disk(config, 128)
    train(config, console=False, stop=threading.Event())
    with pytest.raises(ConfigError, match="--resume"):
        train(config, console=False, stop=threading.Event())


TRAIN = """
import sys
from charles.cli import train
if __name__ == "__main__":
    train()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_killed_trainer_loses_no_stored_sample_and_no_memory(tmp_path):
    config = make_config(tmp_path / "run")
    arguments = ["--preset", "tiny", "--run-dir", str(config.run_dir), "--steps", "100000",
                 "--server.port", str(config.server.port), "--collectors", "1",
                 "--no-console"]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", TRAIN, *arguments])
    checkpoints = Checkpoints(config.run_dir / "checkpoints")
    ends_s = time.monotonic() + 90
    while checkpoints.latest() is None:
        assert time.monotonic() < ends_s
        assert process.poll() is None
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _gone, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    stored = {path.name for path in (config.run_dir / "samples").glob("*.sample")}
    assert stored
    assert blocks_of(process.pid)  # nobody was left to remove them
    step = checkpoints.latest()
    resumed = replace(config, steps=step + 1, data=replace(config.data, keep_fraction=0.05))
    result = train(resumed, collectors=1, console=False, resume=True, stop=threading.Event())
    assert result.steps == step + 1
    assert not blocks_of(process.pid)
    assert not blocks_of(os.getpid())


def test_a_full_disk_ends_the_metrics_and_nothing_else(tmp_path):
    (tmp_path / "metrics.csv").symlink_to("/dev/full")
    log = MetricsLog(tmp_path)
    log.write(1, {"loss": 0.5})
    assert "No space left" in log.failure
    log.write(2, {"loss": 0.5})
    log.close()
