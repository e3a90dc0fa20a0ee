"""Checkpoints: what is saved comes back, what is damaged or foreign is refused."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charles.checkpoint import Checkpoints
from charles.errors import CheckpointError
from charles.state import TrainState


def make_train_state(value: float = 0.0, *, features: int = 8) -> TrainState:
    kernel = jnp.full((3, features), value, jnp.float32)
    params = {"dense": {"kernel": kernel, "bias": jnp.arange(features, dtype=jnp.float32)}}
    return TrainState(
        step=jnp.asarray(int(value), jnp.int32),
        params=params,
        stats={},
        opt_state={"mu": kernel + 1, "count": jnp.asarray(3, jnp.int32)},
        key=jax.random.key_data(jax.random.key(7)),
    )


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def save_all(directory, steps, *, keep=3):
    checkpoints = Checkpoints(directory, keep=keep)
    for step in steps:
        checkpoints.save(step, make_train_state(step), {}, contract={"step": step})
    checkpoints.close()
    return checkpoints


def test_everything_comes_back(tmp_path):
    data = {
        "ids": np.arange(5, dtype=np.int64),
        "none": np.zeros((0, 3), np.float32),
        "draws": np.array([(1, 2.5)], np.dtype([("id", np.uint64), ("weight", np.float32)])),
        "seed": np.array(2**63 + 1, np.uint64),
    }
    contract = {"network": {"widths": [1, 2]}, "outputs": [{"name": "steering"}]}
    state = make_train_state(4)
    with_saved = Checkpoints(tmp_path / "deep" / "checkpoints")
    with_saved.save(4, state, data, contract=contract)
    with_saved.close()

    checkpoints = Checkpoints(tmp_path / "deep" / "checkpoints")
    restored, restored_data = checkpoints.restore(make_train_state())
    assert_same(restored, state)
    assert jax.tree.map(lambda leaf: leaf.sharding, restored) == jax.tree.map(
        lambda leaf: leaf.sharding, state
    )
    assert restored_data.keys() == data.keys()
    for name, array in data.items():
        assert restored_data[name].dtype == array.dtype
        np.testing.assert_array_equal(restored_data[name], array)
    assert checkpoints.contract() == contract
    variables = checkpoints.restore_variables(jax.eval_shape(lambda: state.variables))
    assert_same(variables, state.variables)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))


def test_saving_keeps_the_values_of_its_moment(tmp_path):
    state, data = make_train_state(1), {"ids": np.zeros(1000, np.int64)}
    expected = jax.tree.map(np.array, state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, data, contract={})
    data["ids"][:] = 9
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    jax.block_until_ready(step(state))
    checkpoints.close()
    restored, restored_data = checkpoints.restore(make_train_state())
    assert_same(restored, expected)
    np.testing.assert_array_equal(restored_data["ids"], np.zeros(1000))


def test_save_returns_while_the_disk_is_still_busy(tmp_path):
    params = {f"kernel_{i}": jnp.ones((100, 1000)) for i in range(10)}  # a million parameters
    state = replace(make_train_state(), params=params, opt_state={"mu": params, "nu": params})
    checkpoints = Checkpoints(tmp_path)
    shares, busy_s = [], []
    for step in range(5):
        start, start_busy = time.perf_counter(), time.thread_time()
        checkpoints.save(step, state, {}, contract={})
        blocked, busy = time.perf_counter() - start, time.thread_time() - start_busy
        checkpoints.wait()
        shares.append(blocked / (time.perf_counter() - start))
        busy_s.append(busy)
    checkpoints.close()
    # Both hold on a busy machine too: this thread's own work, and its share of the whole.
    assert np.median(busy_s) < 0.05
    assert np.median(shares) < 0.5


def test_newest_are_kept_and_one_more_for_readers(tmp_path):
    checkpoints = save_all(tmp_path, range(1, 7), keep=2)
    assert checkpoints.steps() == [4, 5, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "5", "6"]
    assert (checkpoints.latest(), checkpoints.watch(5), checkpoints.watch(6)) == (6, 6, None)
    assert checkpoints.contract(4) == {"step": 4}


def test_an_empty_or_missing_directory_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.latest() is None
    assert checkpoints.watch(-1) is None
    with pytest.raises(CheckpointError, match=r"none must include one, got steps \[\]"):
        checkpoints.restore(make_train_state())
    save_all(tmp_path, [3])
    with pytest.raises(CheckpointError, match=r"must include step 5, got steps \[3\]"):
        Checkpoints(tmp_path).restore_variables(make_train_state().variables, step=5)


def test_another_network_is_refused_with_both_sides(tmp_path):
    save_all(tmp_path, [1])
    other = make_train_state(features=9)
    other.params["more"] = {"scale": jnp.ones(2)}
    with pytest.raises(CheckpointError) as refused:
        Checkpoints(tmp_path).restore(other)
    text = str(refused.value)
    assert str(tmp_path / "1") in text
    assert "params.dense.kernel: expected float32 [3, 9], got float32 [3, 8]" in text
    assert "params.more.scale: expected float32 [2], got nothing" in text
    assert "opt_state.mu: expected float32 [3, 9], got float32 [3, 8]" in text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's own
def test_every_truncated_file_is_refused(tmp_path):
    save_all(tmp_path, [1])
    state = make_train_state(1)
    variables = tmp_path / "1" / "variables"
    files = [path for path in (tmp_path / "1").rglob("*") if path.is_file()]
    needed = [path for path in files if path.name in ("manifest.ocdbt", "_CHECKPOINT_METADATA")]
    needed += list((variables / "d").iterdir())
    assert len(needed) >= 5
    for path in needed:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        if "process_0" in str(path):  # a part that is merged away when the save ends
            assert_same(Checkpoints(tmp_path).restore(state)[0], state)
        else:
            with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "1"))):
                Checkpoints(tmp_path).restore(state)
        path.write_bytes(content)
    assert_same(Checkpoints(tmp_path).restore(state)[0], state)


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "12").mkdir()
    with pytest.raises(CheckpointError, match="must be one of Charles's"):
        Checkpoints(tmp_path).contract(12)


def test_older_steps_are_refused_and_the_same_step_is_saved_once(tmp_path):
    checkpoints = save_all(tmp_path, [2, 5])
    with pytest.raises(CheckpointError, match=r"above the newest .* \(5\), got 5"):
        Checkpoints(tmp_path).save(5, make_train_state(), {}, contract={})
    checkpoints.save(5, make_train_state(5), {}, contract={})
    checkpoints.close()
    assert checkpoints.contract() == {"step": 5}


def test_a_failed_save_is_told_and_harms_nothing(tmp_path):
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory)
    checkpoints.save(1, make_train_state(1), {}, contract={})
    checkpoints.wait()
    checkpoints.save(2, make_train_state(2), {}, contract={"not": object()})
    with pytest.raises(CheckpointError, match="must be written to"):
        checkpoints.wait()
    checkpoints.save(2, make_train_state(2), {}, contract={})
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]


WRITER = """
import sys
sys.path[:0] = {path!r}
from tests.test_checkpoint import make_train_state
from charles.checkpoint import Checkpoints

checkpoints = Checkpoints({directory!r}, keep=1)
step = (checkpoints.latest() or 0) + 1
while True:
    checkpoints.save(step, make_train_state(step), {{}}, contract={{"step": step}})
    step += 1
"""


def test_a_disk_that_is_too_full_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, make_train_state(1), {}, contract={})
        checkpoints.wait()
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(CheckpointError, match=r"needs [\d,]+ bytes .* 1,000 are free"):
            checkpoints.save(2, make_train_state(2), {}, contract={})
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_readers_see_whole_checkpoints_while_a_writer_saves_and_is_killed(tmp_path):
    script = WRITER.format(path=sys.path, directory=str(tmp_path))
    writer = subprocess.Popen([sys.executable, "-c", script], env=os.environ)
    try:
        reader, seen = Checkpoints(tmp_path), -1
        num_reads, deadline_s = 0, time.monotonic() + 60
        while num_reads < 6 and time.monotonic() < deadline_s:
            assert writer.poll() is None
            if reader.watch(seen) is None:
                time.sleep(0.002)
                continue
            restored, _ = reader.restore(make_train_state())
            seen = int(restored.step)
            assert_same(restored, make_train_state(seen))
            num_reads += 1
        assert num_reads == 6
    finally:
        writer.kill()
        writer.wait()
    left = Checkpoints(tmp_path)
    newest = left.latest()
    assert int(left.restore(make_train_state())[0].step) == newest
    left.save(newest + 1, make_train_state(newest + 1), {}, contract={})
    left.close()
    assert all(path.name.isdecimal() for path in tmp_path.iterdir())
