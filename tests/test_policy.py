"""A policy sees what the collector stored, swaps without compiling, and refuses what is wrong."""

import time
from dataclasses import replace

import jax
import numpy as np
import pytest
from tests.tiny_run import TinyRun, make_config

from charles.contract import contract_of_capture
from charles.controls import ControlFilter, check_controls, to_controls
from charles.data.history import History
from charles.data.pixels import to_pixels
from charles.errors import CheckpointError, ConfigError
from charles.io.game import Telemetry
from charles.observer import Observer, blank_inputs
from charles.outputs import ACCELERATION_BRAKING, STEERING, OutputConfig
from charles.policy import Policy, load_variables
from charles.staging import Stager


def make_telemetry(rng):
    return Telemetry(
        captured_ns=0,
        controls=rng.uniform(-1, 1, 2).astype(np.float32),
        label=None,
        speed_mps=float(rng.uniform(0, 15)),
        purpose=rng.uniform(-1, 30, 2).astype(np.float32),
        location=(0.0, 0.0, 0.0),
    )


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    made = Policy(make_config(tmp_path_factory.mktemp("run")))
    made.variables = made.untrained(0)
    made.warm_up()
    return made


def changed(policy, change):
    return jax.tree.map(change, jax.device_get(policy.variables))


def test_inputs_are_what_a_collector_would_have_stored(policy):
    rng, spec = np.random.default_rng(0), policy.spec
    observer = Observer(spec)
    history = History(spec.history_length, spec.history_features)
    for _ in range(5):
        telemetry = make_telemetry(rng)
        observer.frame[:] = rng.integers(0, 256, observer.frame.shape, np.uint8)
        inputs = observer.observe(telemetry)
        pixels = np.zeros(spec.pixels_shape, np.uint8)
        rows = np.zeros((spec.history_length, spec.history_features), np.float32)
        to_pixels(observer.frame, spec, pixels)
        history.write_into(rows)
        np.testing.assert_array_equal(inputs["pixels"][0], pixels)
        np.testing.assert_array_equal(inputs["history"][0], rows)
        assert inputs["speed"][0] == np.float32(telemetry.speed_mps)
        np.testing.assert_array_equal(inputs["purpose"][0], telemetry.purpose)
        observer.remember(telemetry)
        history.append(telemetry.controls, telemetry.speed_mps, telemetry.purpose)


def test_the_history_ends_before_the_present_instant(policy):
    observer, telemetry = Observer(policy.spec), make_telemetry(np.random.default_rng(1))
    assert not observer.observe(telemetry)["history"].any()
    observer.remember(telemetry)
    np.testing.assert_array_equal(
        observer.observe(telemetry)["history"][0, -1, :2], telemetry.controls
    )
    observer.restart()
    assert not observer.observe(telemetry)["history"].any()


def test_twenty_swaps_change_the_prediction_and_compile_nothing(policy):
    inputs = blank_inputs(policy.spec)
    before, seen = policy.num_compilations(), set()
    for seed in range(20):
        variables = changed(
            policy, lambda leaf, seed=seed: leaf + leaf.dtype.type(1e-4 * (1 + seed))
        )
        policy.variables = policy.place(variables)
        seen.add(policy.predict(inputs)["steering"])
    assert len(seen) > 10
    assert policy.num_compilations() == before == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda leaf: leaf * np.float32("nan"), "not finite"),
        (lambda leaf: leaf.astype(np.float16), "float16"),
        (lambda leaf: np.zeros((*leaf.shape, 2), leaf.dtype), "expected"),
    ],
)
def test_wrong_parameters_are_refused_with_the_reason(policy, change, reason):
    with pytest.raises(CheckpointError, match=reason):
        policy.admit(changed(policy, change))


def test_parameters_of_another_structure_are_refused_by_name(policy):
    variables = changed(policy, lambda leaf: leaf)
    variables["params"]["extra"] = {"kernel": np.zeros(3, np.float32)}
    with pytest.raises(CheckpointError, match=r"\['extra'\]"):
        policy.admit(variables)


def test_parameters_that_predict_no_number_on_recent_frames_are_refused(policy):
    huge = changed(policy, lambda leaf: np.full(leaf.shape, 3e38, leaf.dtype))
    inputs = blank_inputs(policy.spec)
    inputs["pixels"][:] = 200
    policy.admit(huge)
    with pytest.raises(CheckpointError, match="shadow prediction"):
        policy.admit(huge, (inputs,))


def test_good_parameters_pass(policy):
    inputs = blank_inputs(policy.spec)
    placed = policy.admit(changed(policy, lambda leaf: leaf), (inputs,))
    assert policy.predict(inputs, placed) == policy.predict(inputs)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    run = TinyRun(tmp_path / "run")
    run.save(3, lambda leaf: leaf + 1)
    run.close()
    variables = load_variables(Policy(run.config), run.checkpoint_dir)
    saved = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, run.state.params)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(variables["params"]), saved)


def test_a_missing_checkpoint_is_one_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="Train first"):
        load_variables(Policy(make_config(tmp_path)), tmp_path / "checkpoints")


def test_predictions_become_the_games_controls():
    controls = ("acceleration_braking", "steering")
    whole = to_controls({"steering": -0.25, "acceleration_braking": 1.5}, controls)
    np.testing.assert_allclose(whole, [1.0, -0.25])
    halves = to_controls({"steering": 0.1, "acceleration": 0.2, "braking": 0.7}, controls)
    np.testing.assert_allclose(halves, [-0.5, 0.1], atol=1e-6)
    assert np.isnan(
        to_controls({"steering": float("nan"), "acceleration_braking": 0.0}, controls)[1]
    )


def test_filtered_controls_are_a_running_mean_that_forgets_and_lets_bad_numbers_through():
    outputs = (ACCELERATION_BRAKING, STEERING)
    filtered = ControlFilter(outputs, ("acceleration_braking", "steering"), 0.75)
    nan, up = float("nan"), {"acceleration_braking": 1.0, "steering": -1.0}
    first = filtered.apply({"acceleration_braking": 0.0, "steering": 0.0})
    kept = first.copy()
    np.testing.assert_allclose(filtered.apply(up), [0.25, -0.25])
    np.testing.assert_allclose(filtered.apply(up), [0.4375, -0.4375])
    np.testing.assert_array_equal(first, kept)  # what was handed out is never changed
    assert np.isnan(filtered.apply(up | {"steering": nan})[1])
    np.testing.assert_allclose(filtered.apply(up), [1.0, -1.0])
    filtered.restart()
    np.testing.assert_allclose(filtered.apply({"acceleration_braking": 0.5, "steering": 0.5}), 0.5)


@pytest.mark.parametrize("pedal", ["acceleration_braking", "braking"])
def test_what_adds_to_the_controls_that_apply_is_not_smoothed_again(pedal):
    outputs = (OutputConfig(name=pedal, type="discrete_delta"), STEERING)
    filtered = ControlFilter(outputs, ("acceleration_braking", "steering"), 0.75)
    filtered.apply({"acceleration_braking": 0.0, "steering": 0.0})
    controls = filtered.apply({"acceleration_braking": 1.0, "steering": 1.0})
    np.testing.assert_allclose(controls, [1.0, 0.25])


def test_outputs_that_leave_a_control_undriven_are_refused():
    check_controls(("acceleration", "braking", "steering"), ("acceleration_braking", "steering"))
    with pytest.raises(ConfigError, match="'steering'"):
        check_controls(("acceleration_braking",), ("acceleration_braking", "steering"))


@pytest.mark.parametrize("is_accepted", [False, True])
def test_what_has_learned_from_other_pictures_is_not_swapped_in(policy, tmp_path, is_accepted):
    run = TinyRun(tmp_path / "run")
    seen = contract_of_capture(run.config)
    run.save(1, capture=seen)
    with Stager(policy, run.checkpoint_dir, poll_s=0.05, accepts_contract=is_accepted) as stager:
        wait_for(lambda: stager.newest is not None)
        run.save(2, capture=replace(seen, crop_top=0.125))
        wait_for(lambda: stager.refusals or stager.newest.step == 2)
        assert stager.newest.step == (2 if is_accepted else 1)
        if not is_accepted:
            assert "crop_top: 0.3 → 0.125" in stager.refusals[0].reason
            assert "--accept-contract" in stager.refusals[0].reason
        run.save(3, capture=seen)
        wait_for(lambda: stager.newest.step == 3)
    run.close()


def wait_for(condition):
    ends_s = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < ends_s, "timed out"
        time.sleep(0.02)
