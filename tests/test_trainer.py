"""The live loop: trains on what real collectors send, resumes exactly, survives being killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np
import psutil
import pytest
from tests.ports import free_port

from charles import presets, trainer
from charles.checkpoint import Checkpoints
from charles.config import OptimizerConfig, ServerConfig, ValidationConfig
from charles.data.buffers import known_ids
from charles.data.loader import make_batch
from charles.data.shm import PREFIX, block_dir
from charles.data.storage import Storage
from charles.errors import CheckpointError, ConfigError, ContractError
from charles.hot import HotValues
from charles.intake import sample_spec
from charles.learner import Learner, NotFiniteError
from charles.rate_guard import NICENESS
from charles.sample import SampleFlag
from charles.trainer import train


def make_config(run_dir, **changes):
    config = replace(presets.tiny(), run_dir=run_dir, server=ServerConfig(port=free_port()))
    return replace(config, **changes)


def blocks_of(pid):
    """Shared-memory blocks that a process made; others may be running on this machine."""
    return list(block_dir().glob(f"{PREFIX}*-{pid}-*"))


def names_of(config):
    return tuple(output.name for output in config.outputs)


def put_on_disk(config, count, held_out=0, human=0):
    """Samples as an earlier session would have left them: then some of a held-out world, and last
    some of a person who took the wheel."""
    spec = sample_spec(config)
    rng = np.random.default_rng(0)
    storage = Storage(config.run_dir / "samples", spec, names_of(config))
    flags = [SampleFlag.NONE] * (count - held_out) + [SampleFlag.HELD_OUT] * held_out
    flags += [SampleFlag.TAKEOVER | SampleFlag.HUMAN] * human
    for number, flag in enumerate(flags):
        header = np.zeros((), spec.header_dtype)
        header["label"] = rng.uniform(-1, 1, 2)
        header["speed_mps"] = rng.uniform(0, 10)
        header["flags"] = flag
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


HUMAN_STATE = ("human_ids", "human_draws", "human_counters", "human_rng")

EVERYTHING = {
    "accumulate": 2,
    "optimizer": OptimizerConfig(ema_decay=0.9, schedule="linear", warmup_steps=2, decay_steps=9),
    "validation": ValidationConfig(every_steps=2),
}


@pytest.mark.parametrize(
    ("ends", "held_out", "changes"),
    [((2, 4), 0, {}), ((2, 4), 16, EVERYTHING)],
    ids=["plain", "everything"],
)
def test_training_at_once_is_training_2_steps_and_resuming(tmp_path, ends, held_out, changes):
    runs, validated = {}, {}
    for name, parts in {"whole": ends[-1:], "parts": ends}.items():
        data = replace(presets.tiny().data, replay_ratio=2, validation_capacity=16,
                       validation_share=0.1 if held_out else 0.0)  # fmt: skip
        config = make_config(tmp_path / name, data=data, **changes)
        put_on_disk(config, 128 + held_out, held_out, human=3 * bool(held_out))
        for number, steps in enumerate(parts):
            part = replace(config, steps=steps)
            train(part, console=False, resume=number > 0, stop=threading.Event())
        runs[name] = newest(config)
        table = config.run_dir / "validation.csv"
        validated[name] = table.read_text() if table.exists() else ""
    assert validated["whole"] == validated["parts"]
    assert len(validated["whole"].splitlines()) == (3 if held_out else 0)
    (step, leaves, data), (other_step, other_leaves, other_data) = runs.values()
    assert step == other_step == ends[-1]
    assert leaves.keys() == other_leaves.keys()
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, other_leaves[name], err_msg=name)
    # How far the loader has drawn ahead depends on the machine; what it drew does not.
    ahead, other_ahead = int(data["num_pending"]), int(other_data["num_pending"])
    both = min(ahead, other_ahead)
    np.testing.assert_array_equal(data["pending_ids"][:both], other_data["pending_ids"][:both])
    names = ("sizes", "rng", "drawn", *HUMAN_STATE) if ahead == other_ahead else ("sizes",)
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

    monkeypatch.setattr(trainer, "FLUSH_S", 60.0)  # however busy the disk and the machine are
    monkeypatch.setattr(Storage, "_write", write_slowly)
    monkeypatch.setattr(Learner, "save", save_and_look)
    train(config, collectors=1, console=False, stop=threading.Event())
    assert len(lacking) >= 2
    assert not any(lacking)


def test_stopping_saves_a_checkpoint(tmp_path):
    config = make_config(tmp_path / "run", steps=10_000)
    put_on_disk(config, 128)
    config = replace(config, data=replace(config.data, replay_ratio=1000))
    stop, table = threading.Event(), config.run_dir / "metrics.csv"

    def stop_once_training():
        ends_s = time.monotonic() + 100
        while not (table.exists() and rows_of(table)) and time.monotonic() < ends_s:
            time.sleep(0.05)
        stop.set()

    watching = threading.Thread(target=stop_once_training)
    watching.start()
    result = train(config, console=False, stop=stop)
    watching.join()
    assert result.reason == "stopped"
    assert Checkpoints(config.run_dir / "checkpoints").latest() == result.steps > 0


def test_a_directory_with_checkpoints_is_not_trained_over(tmp_path):
    config = make_config(tmp_path / "run", steps=1)
    put_on_disk(config, 128)
    train(config, console=False, stop=threading.Event())
    with pytest.raises(ConfigError, match="--resume"):
        train(config, console=False, stop=threading.Event())


def test_a_resume_that_is_refused_leaves_the_settings_of_the_run_alone(tmp_path):
    config = make_config(tmp_path / "run", steps=1)
    put_on_disk(config, 128)
    train(config, console=False, stop=threading.Event())
    before = (config.run_dir / "config.json").read_bytes()
    compact = replace(config.network.compact, neck=5)
    other = replace(config, network=replace(config.network, compact=compact))
    with pytest.raises(ContractError, match=r"network\.compact\.neck: 4 → 5"):
        train(other, console=False, resume=True, stop=threading.Event())
    with pytest.raises(CheckpointError):  # which no consent can change
        train(other, console=False, resume=True, accept_contract=True, stop=threading.Event())
    assert (config.run_dir / "config.json").read_bytes() == before


def test_a_resume_with_settings_that_no_shape_tells_is_refused_by_name(tmp_path):
    config = make_config(tmp_path / "run", steps=1)
    put_on_disk(config, 128)
    train(config, console=False, stop=threading.Event())
    other = replace(config, steps=2, network=replace(config.network, crop_top=0.1))
    with pytest.raises(ContractError, match=r"network\.crop_top: 0\.3 → 0\.1"):
        train(other, console=False, resume=True, stop=threading.Event())
    done = train(other, console=False, resume=True, accept_contract=True, stop=threading.Event())
    assert done.steps == 2


def test_a_batch_that_cannot_be_learned_from_is_not_the_first_of_a_resume(tmp_path, monkeypatch):
    config = make_config(tmp_path / "run", steps=3)
    put_on_disk(config, 128)
    step = Learner.step

    def fail_at_the_third(self, batch):
        if self.step_number == 2:
            raise NotFiniteError("The loss must be finite.")
        return step(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "step", fail_at_the_third)
        with pytest.raises(NotFiniteError):
            train(config, console=False, stop=threading.Event())
    number, _, data_state = newest(config)
    assert number == 2
    waiting = int(data_state["num_pending"]) * config.batch_size  # drawn ahead
    assert len(known_ids(data_state)) + waiting == 128 - 3 * config.batch_size
    result = train(config, console=False, resume=True, stop=threading.Event())
    assert result.steps == 3


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(self, data_state):
        raise CheckpointError("The disk is full.")

    monkeypatch.setattr(Learner, "save", fail)
    config = make_config(tmp_path / "run", steps=1)
    put_on_disk(config, 128)
    with pytest.raises(CheckpointError, match="full"):
        train(config, console=False, stop=threading.Event())
    assert not blocks_of(os.getpid())


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


def niceness_of(pid):
    found = set()
    for thread in psutil.Process(pid).threads():
        with suppress(ProcessLookupError):  # it has ended
            found.add(os.getpriority(os.PRIO_PROCESS, thread.id))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="a niceness of each thread")
def test_a_player_that_drives_goes_before_trainer_and_collectors(tmp_path):
    config = make_config(tmp_path / "run")
    arguments = ["--preset", "tiny", "--run-dir", str(config.run_dir), "--steps", "100000",
                 "--server.port", str(config.server.port), "--collectors", "1", "--player",
                 "--no-console"]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", TRAIN, *arguments])
    ends_s = time.monotonic() + 90
    while niceness_of(process.pid) != {NICENESS}:  # XLA's threads, too, which began before
        assert time.monotonic() < ends_s
        assert process.poll() is None
        time.sleep(0.1)
    children = psutil.Process(process.pid).children()
    workers = [each for each in children if "resource_tracker" not in " ".join(each.cmdline())]
    assert sorted(each.nice() for each in workers) == [0, NICENESS + 5]
    process.terminate()
    assert process.wait(60) == 0


def rows_of(path):
    with path.open(newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_collectors_see_in_held_out_worlds_is_measured_and_not_trained_on(tmp_path):
    data = replace(presets.tiny().data, validation_share=0.5, validation_capacity=8,
                   buffer_capacity=32, replay_ratio=2)  # fmt: skip
    config = make_config(tmp_path / "run", steps=10_000, data=data,
                         validation=ValidationConfig(every_steps=2),
                         optimizer=OptimizerConfig(warmup_steps=2, ema_decay=0.9))  # fmt: skip
    config = replace(config, collect=replace(config.collect, scene_s=4.0))
    stop = threading.Event()

    def stop_once_measured():
        ends_s = time.monotonic() + 250
        while not (config.run_dir / "validation.csv").exists() and time.monotonic() < ends_s:
            time.sleep(0.1)
        time.sleep(1.0)
        stop.set()

    watching = threading.Thread(target=stop_once_measured)
    watching.start()
    train(config, collectors=1, console=False, stop=stop)
    watching.join()
    rows = rows_of(config.run_dir / "validation.csv")
    assert rows
    for row in rows:
        assert set(row) == {"step", "validation/steering_loss", "validation/steering_mae",
                            "validation/acceleration_braking_loss",
                            "validation/acceleration_braking_mae"}  # fmt: skip
        assert np.isfinite(float(row["validation/steering_loss"]))
    storage = Storage(config.run_dir / "samples", sample_spec(config),
                      tuple(output.name for output in config.outputs))  # fmt: skip
    with closing(storage):
        samples = {one.id: int(one.header["flags"]) for one in storage.load()}
    _, _, data_state = newest(config)
    held_out = {one for one, flags in samples.items() if flags & SampleFlag.HELD_OUT}
    assert held_out
    assert not held_out & known_ids(data_state)


def test_the_hot_file_changes_rate_and_weights_while_training_runs(tmp_path):
    data = replace(presets.tiny().data, replay_ratio=1e6)
    config = make_config(tmp_path / "run", steps=1_000_000, data=data)
    put_on_disk(config, 128)
    stop, hot, table = (
        threading.Event(), config.run_dir / "hot.json", config.run_dir / "metrics.csv"
    )  # fmt: skip

    def wait_for(condition):
        ends_s = time.monotonic() + 60
        while not (table.exists() and len(rows := rows_of(table)) > 1 and condition(rows[-2])):
            assert time.monotonic() < ends_s
            time.sleep(0.05)

    def turn():
        try:
            wait_for(lambda row: True)
            seen.append(json.loads(hot.read_text()))
            hot.write_text('{"learning_rate": 2e-5, "loss_weights": {"steering": 0.0}}')
            wait_for(lambda row: float(row["learning_rate"]) == pytest.approx(2e-5))
            hot.write_text("no JSON")
            time.sleep(1.5)
        finally:
            stop.set()

    seen = []
    person = threading.Thread(target=turn)
    person.start()
    train(config, console=False, stop=stop)
    person.join()
    peak = config.optimizer.learning_rate
    weights = {"acceleration_braking": 1.0, "steering": 1.0}
    assert seen == [{"learning_rate": peak, "loss_weights": weights}]
    last = rows_of(table)[-1]
    assert float(last["learning_rate"]) == pytest.approx(2e-5)
    assert float(last["loss"]) == pytest.approx(float(last["acceleration_braking_loss"]), rel=1e-5)
    hot.write_text('{"learning_rate": 4e-5}')
    resumed = replace(config, steps=int(last["step"]) + 1)
    train(resumed, console=False, resume=True, stop=threading.Event())
    assert float(rows_of(table)[-1]["learning_rate"]) == pytest.approx(4e-5)


def test_a_learner_turned_while_it_runs_compiles_once(tmp_path):
    config = make_config(tmp_path / "run")
    learner = Learner(config)
    batch = make_batch(sample_spec(config), config.batch_size)
    rates = []
    for rate in (1e-3, 1e-3, 5e-4):
        values = HotValues(learning_rate=rate, loss_weights=HotValues.of(config).loss_weights)
        learner.turn(values)
        rates.append(learner.host_scalars(learner.step(learner.put(batch)))["learning_rate"])
    learner.close()
    assert rates == pytest.approx([5e-4, 1e-3, 5e-4])  # two steps of warm-up
    assert learner._step._cache_size() == 1
    first = learner.validate([batch, batch])
    assert set(first) == {"steering_loss", "steering_mae", "acceleration_braking_loss",
                          "acceleration_braking_mae"}  # fmt: skip
    assert learner.validate([batch]) == pytest.approx(first)
    assert learner.validate([]) == {}
    assert learner._evaluate._cache_size() == 1
