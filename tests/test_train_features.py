"""What a training step can do besides a plain step, each against a reference."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tests.test_train_step import DRIVER, NETWORK, OUTPUTS, SAMPLE, make_batch

from charles.checkpoint import Checkpoints
from charles.config import AugmentConfig, OptimizerConfig
from charles.data.device import put
from charles.nets.driver import make_network
from charles.nets.functional import functionalize
from charles.nets.precision import compute_dtype
from charles.optim import make_optimizer
from charles.state import Knobs, batch_sharding, make_mesh, make_state
from charles.train_step import Gradient, make_evaluate, make_train_step, measure, move_average

PLAIN = AugmentConfig(shift=0)
SGD = OptimizerConfig(kind="sgd", momentum=0, weight_decay=0, warmup_steps=0, learning_rate=0.1,
                      clip_norm=1e9)  # fmt: skip
MESH = make_mesh(jax.devices()[:1])
KEY = jax.random.key(3)


class Normed(nnx.Module):
    """A small network with batch normalisation, whose statistics depend on what it saw."""

    def __init__(self, rngs):
        self.first = nnx.Linear(3, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        names = [output.config.name for output in OUTPUTS]
        self.heads = nnx.Dict({name: nnx.Linear(8, 1, rngs=rngs) for name in names})

    def __call__(self, batch, *, is_training, key=None):
        x = jnp.concatenate([batch["speed"][:, None] / 10, batch["purpose"]], axis=-1)
        x = jax.nn.relu(self.norm(self.first(x), use_running_average=not is_training))
        return {name: head(x) for name, head in self.heads.items()}


NORMED = functionalize(Normed, lambda batch: batch | {"image": batch["pixels"] / 127.5 - 1})


def make_gradient(network=DRIVER, **settings):
    gradient = Gradient(network, OUTPUTS, PLAIN, SAMPLE.controls, MESH, **settings)
    return jax.jit(gradient)


def make_rig(network, config, frozen=(), **settings):
    optimizer = make_optimizer(config, frozen)
    step = make_train_step(
        network,
        OUTPUTS,
        optimizer,
        PLAIN,
        control_names=SAMPLE.controls,
        mesh=MESH,
        ema_decay=config.ema_decay,
        **settings,
    )
    return step, make_state(network, optimizer, seed=0, mesh=MESH, is_averaged=config.ema_decay > 0)


def train(step, state, numbers):
    metrics = {}
    for number in numbers:
        state, metrics = step(state, put(make_batch(number), batch_sharding(MESH)))
    return state, {name: float(value) for name, value in metrics.items()}


def copy_of(tree):
    return jax.tree.map(np.array, tree)


def assert_close(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize(
    ("network", "config", "settings"),
    [
        (NORMED, OptimizerConfig(ema_decay=0.9, schedule="linear", decay_steps=5), {}),
        (NORMED, replace(SGD, momentum=0.9), {"accumulate": 4}),
        (NORMED, OptimizerConfig(kind="adam"), {"is_per_output": True}),
        (NORMED, OptimizerConfig(ema_decay=0.5), {"is_per_output": True, "accumulate": 2}),
        (DRIVER, OptimizerConfig(ema_decay=0.5), {"accumulate": 2, "frozen": ("backbone",)}),
    ],
    ids=["average", "accumulate", "per output", "all", "frozen"],
)
def test_four_steps_are_two_saved_restored_and_two_more(tmp_path, network, config, settings):
    step, first = make_rig(network, config, **settings)
    like, fresh = copy_of(first), first
    sharding = jax.tree.map(lambda leaf: leaf.sharding, first)
    whole, _ = train(step, fresh, range(4))
    half, _ = train(step, jax.device_put(like, sharding), range(2))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, half, {}, contract={})
    checkpoints.close()
    restored, _ = checkpoints.restore(jax.device_put(like, sharding))
    again, _ = train(step, restored, range(2, 4))
    assert jax.tree.structure(again) == jax.tree.structure(whole)
    assert_same(again, whole)
    assert step._cache_size() == 1
    for name in like.params:
        is_changed = not all(
            np.array_equal(*pair)
            for pair in zip(
                jax.tree.leaves(whole.params[name]), jax.tree.leaves(like.params[name]), strict=True
            )
        )
        assert is_changed == (name not in settings.get("frozen", ()))


def test_average_is_the_running_mean_with_its_usual_beginning(tmp_path):
    config = OptimizerConfig(ema_decay=0.3, learning_rate=0.01, warmup_steps=0)
    step, state = make_rig(NORMED, config)
    expected = copy_of(state.variables)
    for number in range(5):
        state, _ = train(step, state, [number])
        kept = np.float32(min(0.3, (1 + number) / (10 + number)))
        newest = copy_of(state.variables)
        expected = jax.tree.map(
            lambda mean, value, kept=kept: kept * mean + (1 - kept) * value, expected, newest
        )
        assert_close(state.average, expected, rtol=1e-5, atol=1e-6)
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected, newest)
    assert min(jax.tree.leaves(difference["stats"])) > 0
    # A reader of the checkpoint gets the average; one who resumes gets both.
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state, {}, contract={})
    checkpoints.close()
    shapes = NORMED.shapes
    assert_same(checkpoints.restore_variables(shapes), copy_of(state.average))
    assert_same(checkpoints.restore(state)[0].params, state.params)


def test_without_a_decay_there_is_no_average_and_training_is_driven_with():
    step, state = make_rig(NORMED, OptimizerConfig())
    state, _ = train(step, state, range(2))
    assert not state.average
    assert_same(state.driving, state.variables)


def test_an_average_of_what_never_changes_is_that_bit_for_bit():
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=99), jnp.float32)}
    average = params
    for step in range(20):
        average = move_average(average, params, 0.999, jnp.asarray(step))
    assert_same(average, params)


@pytest.mark.parametrize("accumulate", [2, 8])
def test_accumulated_gradients_are_those_of_the_whole_batch(accumulate):
    state = make_state(DRIVER, make_optimizer(SGD), seed=0, mesh=MESH)
    batch = make_batch(0)
    grads, _, metrics = make_gradient()(state, batch, KEY)
    parts, _, part_metrics = make_gradient(accumulate=accumulate)(state, batch, KEY)
    assert_close(parts, grads, rtol=1e-4, atol=3e-5)
    assert part_metrics.keys() == metrics.keys()
    assert_close(part_metrics, metrics, rtol=1e-5)


def test_every_accumulated_part_has_equal_shares_and_statistics_go_through_all():
    state = make_state(NORMED, make_optimizer(SGD), seed=0, mesh=MESH)
    batch = make_batch(0)
    half = len(batch["speed"]) // 2
    batch["speed"][half:] += 100  # what was picked for the second output
    _, stats, _ = make_gradient(NORMED, accumulate=4)(state, batch, KEY)
    expected = state.stats
    for number in range(4):
        picked = np.r_[2 * number : 2 * number + 2, half + 2 * number : half + 2 * number + 2]
        part = {name: jnp.asarray(value[picked]) for name, value in batch.items()}
        variables = {"params": state.params, "stats": expected}
        _, expected = NORMED.forward(variables, part, is_training=True)
    assert_close(stats, expected, rtol=1e-5)


def separate(network, state, batch, weights):
    """Sum of the gradients of each output's loss on its own part; statistics one after another."""
    total, stats = jax.tree.map(jnp.zeros_like, state.params), state.stats
    half = len(batch["speed"]) // 2
    for number, output in enumerate(OUTPUTS):
        part = {name: value[number * half : (number + 1) * half] for name, value in batch.items()}

        def loss_of(params, part=part, output=output, stats=stats, weight=weights[number]):
            variables = {"params": params, "stats": stats}
            predictions, new = network.forward(
                variables, network.prepare(part), is_training=True, key=KEY
            )
            metrics = measure(predictions, part, (output,), SAMPLE.controls)
            return weight * metrics[f"{output.config.name}_loss"], new

        grads, stats = jax.grad(loss_of, has_aux=True)(state.params)
        total = jax.tree.map(jnp.add, total, grads)
    return total, stats


@pytest.mark.parametrize("network", [DRIVER, NORMED], ids=["driver", "normed"])
def test_outputs_trained_apart_sum_their_gradients(network):
    names = [output.config.name for output in OUTPUTS]
    knobs = Knobs.of(0.1, dict(zip(names, (0.5, 3.0), strict=True)))
    optimizer = make_optimizer(SGD)
    state = make_state(network, optimizer, seed=0, mesh=MESH, knobs=knobs)
    batch = make_batch(0)
    grads, stats, metrics = make_gradient(network, is_per_output=True)(state, batch, KEY)
    expected, expected_stats = jax.jit(
        lambda state, batch: separate(network, state, batch, (0.5, 3.0))
    )(state, batch)
    assert_close(grads, expected, rtol=1e-4, atol=1e-6)
    assert_close(stats, expected_stats, rtol=1e-5)
    total = 0.5 * metrics[f"{names[0]}_loss"] + 3 * metrics[f"{names[1]}_loss"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_other_outputs_labels_have_no_influence_when_trained_apart(accumulate):
    state = make_state(DRIVER, make_optimizer(SGD), seed=0, mesh=MESH)
    gradient = make_gradient(is_per_output=True, accumulate=accumulate)
    batch, other = make_batch(0), make_batch(0)
    half = len(batch["speed"]) // 2
    other["label"][:half, 1] = np.nan  # steering, of samples picked for the pedal
    other["label"][half:, 0] = np.nan
    assert_same(gradient(state, batch, KEY), gradient(state, other, KEY))
    # The same labels do count where outputs are trained together.
    grads, _, _ = make_gradient()(state, other, KEY)
    assert not np.isfinite(float(optax.tree.norm(grads)))


def test_knobs_change_rate_and_weights_without_compiling():
    step, state = make_rig(DRIVER, replace(SGD, warmup_steps=4))
    place = jax.tree.leaves(state)[0].sharding
    names = [output.config.name for output in OUTPUTS]

    def turned(state, rate, *weights):
        knobs = Knobs.of(rate, dict(zip(names, weights, strict=True)))
        return replace(state, knobs=jax.device_put(knobs, place))

    state, metrics = train(step, turned(state, 0.1, 1.0, 1.0), range(1))
    assert metrics["learning_rate"] == pytest.approx(0.1 / 4)
    state, metrics = train(step, turned(state, 0.02, 1.0, 0.0), range(1, 2))
    assert metrics["learning_rate"] == pytest.approx(0.02 * 2 / 4)
    assert metrics["loss"] == pytest.approx(metrics[f"{names[0]}_loss"])
    before = copy_of(state.params)
    state, metrics = train(step, turned(state, 0.0, 1.0, 1.0), range(2, 3))
    assert metrics["learning_rate"] == 0
    assert_same(state.params, before)
    assert step._cache_size() == 1


def test_knobs_at_the_configured_values_change_nothing():
    knobs = Knobs.of(SGD.learning_rate, {out.config.name: 1.0 for out in OUTPUTS})
    step, state = make_rig(DRIVER, SGD)
    place = jax.tree.leaves(state)[0].sharding
    other = replace(jax.tree.map(jnp.copy, state), knobs=jax.device_put(knobs, place))
    plain, _ = train(step, state, range(2))
    turned, _ = train(step, other, range(2))
    # Two programs: what is constant in one may be rounded elsewhere than in the other.
    assert_close(turned.params, plain.params, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_that_is_kept_is_float32_whatever_is_computed_in(precision):
    network = make_network(NETWORK, SAMPLE, OUTPUTS, dtype=compute_dtype(precision))
    step, state = make_rig(network, OptimizerConfig(ema_decay=0.5))
    text = str(jax.make_jaxpr(step)(state, make_batch(0)))
    assert ("bf16" in text) == (precision == "bfloat16")
    state, _ = train(step, state, range(2))
    kept = [state.params, state.stats, state.average, state.opt_state]
    floats = [leaf for leaf in jax.tree.leaves(kept) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype.name for leaf in floats} == {"float32"}
    exact, _, expected = make_gradient()(state, make_batch(5), KEY)
    grads, _, metrics = make_gradient(network)(state, make_batch(5), KEY)
    assert metrics["loss"].dtype == jnp.float32
    assert_close(metrics, expected, rtol=0.05)
    close = 0.1 if precision == "bfloat16" else 1e-6
    error = optax.tree.norm(jax.tree.map(jnp.subtract, grads, exact)) / optax.tree.norm(exact)
    assert float(error) < close


def test_auto_is_float32_on_a_cpu():
    assert compute_dtype() == (jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)


@pytest.mark.parametrize("is_per_output", [False, True])
def test_evaluation_measures_without_training(is_per_output):
    state = make_state(NORMED, make_optimizer(SGD), seed=0, mesh=MESH)
    evaluate = make_evaluate(
        NORMED, OUTPUTS, control_names=SAMPLE.controls, mesh=MESH, is_per_output=is_per_output
    )
    batch = make_batch(0)
    found = evaluate(state.variables, batch)
    assert len(found) == 4
    predictions, _ = NORMED.apply(state.variables, batch, is_training=False)
    half = len(batch["speed"]) // 2
    for number, output in enumerate(OUTPUTS):
        part = slice(number * half, (number + 1) * half) if is_per_output else slice(None)
        name = output.config.name
        error = np.abs(np.clip(predictions[name][part, 0], -1, 1) - batch["label"][part, number])
        np.testing.assert_allclose(found[f"{name}_mae"], error.mean(), rtol=1e-5)
    evaluate(state.variables, make_batch(1))
    assert evaluate._cache_size() == 1
