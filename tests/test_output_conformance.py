"""One suite over every type of output: what the rest of Charles relies on, whatever is declared."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.errors import ConfigError
from charles.outputs import Bins, OutputConfig, check_deltas, current_of, make_output
from charles.outputs.kinds import class_weights

NAMES = ("acceleration_braking", "steering")

DECLARED = {
    "regression": OutputConfig(name="steering"),
    "regression, half": OutputConfig(name="braking", low=0.0, excess_weight=3.0),
    "regression, edges": OutputConfig(name="steering", edges=(-1.0, -0.2, 0.0, 0.2, 1.0),
                                      exact=(-1.0, 0.0, 1.0)),
    **{
        f"{kind}, {targets}, {decoding}": OutputConfig(name="steering", type=kind, targets=targets,
                                                       decoding=decoding)
        for kind, targets, decoding in product(("classification", "discrete_delta"),
                                               ("hard", "soft"), ("expectation", "argmax"))
    },
    "classification, given": OutputConfig(name="steering", type="classification",
                                          classes=(-1.0, -0.25, 0.0, 0.5, 1.0)),
    "classification, half": OutputConfig(name="acceleration", type="classification", low=0.0,
                                         num_classes=7),
    "discrete_delta, half": OutputConfig(name="braking", type="discrete_delta", low=0.0,
                                         excess_weight=2.0),
    "discrete_delta, given": OutputConfig(name="acceleration_braking", type="discrete_delta",
                                          classes=(-0.5, 0.1), low=-0.5, high=0.75),
}  # fmt: skip
"""Outputs of every type and option."""

CLASSES = [name for name, config in DECLARED.items() if config.class_values]

every_output = pytest.mark.parametrize("config", DECLARED.values(), ids=DECLARED.keys())
every_class = pytest.mark.parametrize(
    "config", [DECLARED[name] for name in CLASSES], ids=CLASSES
)  # fmt: skip


def make_inputs(config, size=40, seed=0):
    """Random logits, labels and current values of an output; both ends of the range among them."""
    rng = np.random.default_rng(seed)
    output = make_output(config)
    logits = rng.normal(0, 3, (size, output.num_units)).astype(np.float32)
    labels = rng.uniform(-1, 1, (size, len(NAMES))).astype(np.float32)
    labels[:2], labels[2:4] = -1.0, 1.0
    history = rng.uniform(-1, 1, (size, 3, len(NAMES) + 3)).astype(np.float32)
    current = current_of(history, NAMES, config.name)
    return output, logits, labels, current


@every_output
def test_decoded_values_lie_in_the_range_whatever_the_head_says(config):
    output, logits, _, current = make_inputs(config)
    for scale in (0.0, 1.0, 1e4):
        values = output.decode(scale * logits, current)
        assert values.shape == (40,)
        assert ((values >= config.low) & (values <= config.high)).all()


@every_output
def test_numpy_and_jax_say_the_same(config):
    output, logits, labels, current = make_inputs(config)

    def everything(logits, labels, current):
        target = output.target(labels, NAMES, current)
        return (target, output.loss(logits, target), output.metric(logits, target, current),
                output.decode(logits, current))  # fmt: skip

    compiled = jax.jit(everything)(logits, labels, current)
    for ours, theirs in zip(everything(logits, labels, current), compiled, strict=True):
        assert theirs.dtype == jnp.float32
        assert theirs.shape == (40,)
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-5)


@every_output
def test_gradients_are_finite_even_of_a_head_that_is_far_off(config):
    output, logits, labels, current = make_inputs(config)
    target = jnp.asarray(output.target(labels, NAMES, current))
    grad_of = jax.jit(jax.grad(lambda raw: output.loss(raw, target).sum()))
    for scale in (0.0, 1.0, 1e4):
        assert np.isfinite(grad_of(scale * logits)).all()


@every_output
def test_following_the_gradient_ends_at_the_label(config):
    """The loss has its minimum where the decoded value is the label, as near as classes allow."""
    output, logits, labels, current = make_inputs(config)
    reach = 0.0
    if config.class_values:
        gaps = np.diff(config.class_values)
        is_exact = config.targets == "soft" and config.decoding == "expectation"
        reach = 0.0 if is_exact else gaps.max() / 2
        if config.is_by_change:  # only labels that one change reaches
            low, high = config.class_values[0], config.class_values[-1]
            column = np.clip(labels, config.low, config.high)
            labels = np.clip(column, current[:, None] + low, current[:, None] + high)
    target = jnp.asarray(output.target(labels, NAMES, current))
    grad_of = jax.grad(lambda raw: output.loss(raw, target).sum())
    before = jnp.asarray(0.1 * logits)
    raw = jax.jit(lambda raw: jax.lax.fori_loop(0, 3000, lambda _, x: x - 0.3 * grad_of(x), raw))(
        before
    )
    assert (output.loss(raw, target) <= output.loss(before, target) + 1e-6).all()
    errors = output.metric(raw, target, current)
    if config.excess_weight == 1.0 or not config.class_values:
        assert errors.max() <= reach + 0.01


@every_output
def test_the_metric_is_the_error_of_the_decoded_value(config):
    output, logits, labels, current = make_inputs(config)
    target = output.target(labels, NAMES, current)
    column = {"steering": labels[:, 1], "acceleration_braking": labels[:, 0],
              "acceleration": labels[:, 0], "braking": -labels[:, 0]}[config.name]  # fmt: skip
    wanted = np.clip(column, config.low, config.high)
    error = np.abs(output.decode(logits, current) - wanted)
    np.testing.assert_allclose(output.metric(logits, target, current), error, atol=1e-6)


@every_output
def test_bins_cover_whatever_can_be_asked_for_without_gap(config):
    bins = Bins.of(config)
    span = config.high - config.low
    low, high = (-span, span) if config.is_by_change else (config.low, config.high)
    assert bins.lows[0] <= low
    assert bins.highs[-1] >= high
    assert (bins.lows < bins.highs).all()
    np.testing.assert_allclose(bins.lows[1:], bins.highs[:-1])
    assert len(set(bins.names)) == len(bins)


@every_class
def test_every_class_is_a_bin_and_a_label_falls_into_that_of_its_hard_target(config):
    output, _, labels, current = make_inputs(config, size=500)
    bins, classes = Bins.of(config), np.array(config.class_values)
    assert len(bins) == output.num_units == len(classes)
    target = output.target(labels, NAMES, current)
    nearest = np.abs(target[:, None] - classes).argmin(-1)
    np.testing.assert_array_equal(bins.index(target), nearest)


@every_class
def test_a_sure_prediction_reads_as_its_class(config):
    output, _, _, _ = make_inputs(config)
    sure = 100.0 * np.eye(output.num_units, dtype=np.float32)
    current = np.full(output.num_units, (config.low + config.high) / 2, np.float32)
    start = current if config.is_by_change else 0.0
    wanted = np.clip(start + np.array(config.class_values), config.low, config.high)
    np.testing.assert_allclose(output.decode(sure, current), wanted, atol=1e-6)


def test_cross_entropy_is_that_of_its_definition():
    config = OutputConfig(name="steering", type="classification", classes=(-1.0, 0.0, 1.0),
                          targets="soft")  # fmt: skip
    logits = np.log(np.array([[0.2, 0.3, 0.5]], np.float32))
    loss = make_output(config).loss(logits, np.array([0.25], np.float32))
    assert loss[0] == pytest.approx(-(0.75 * np.log(0.3) + 0.25 * np.log(0.5)), rel=1e-6)
    hard = OutputConfig(name="steering", type="classification", classes=(-1.0, 0.0, 1.0))
    loss = make_output(hard).loss(logits, np.array([0.25], np.float32))
    assert loss[0] == pytest.approx(-np.log(0.3), rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.floats(-1, 1), st.lists(st.floats(-0.99, 0.99), max_size=6, unique=True))
def test_the_mean_of_a_soft_target_is_the_label(label, inner):
    classes = tuple(sorted({-1.0, *np.round(inner, 2).tolist(), 1.0}))
    config = OutputConfig(name="steering", type="classification", classes=classes, targets="soft")
    target = make_output(config).target(np.array([[0.0, label]], np.float32), NAMES, 0.0)
    weights = class_weights(target, config)
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert (weights > 0).sum() <= 2
    assert float((weights * np.array(classes)).sum()) == pytest.approx(label, abs=1e-5)


@pytest.mark.parametrize("excess", [0.25, 1.0, 3.0])
def test_classes_read_as_a_regression_with_the_same_excess_weight_would_have_learned(excess):
    classes = (-1.0, -0.5, 0.25, 1.0)
    config = OutputConfig(name="steering", type="classification", classes=classes,
                          excess_weight=excess)  # fmt: skip
    chances = np.random.default_rng(0).dirichlet(np.ones(4), 20).astype(np.float32)
    values = make_output(config).decode(np.log(chances), 0.0)
    guesses = np.linspace(-1, 1, 4001)[:, None]
    regression = make_output(OutputConfig(name="steering", excess_weight=excess, low=-2, high=2))
    costs = sum(
        chances[:, number] * regression.loss(guesses, np.full(len(guesses), value))[:, None]
        for number, value in enumerate(classes)
    )
    np.testing.assert_allclose(values, guesses[costs.argmin(0), 0], atol=1e-3)


def test_the_current_value_is_the_newest_of_the_history():
    history = np.zeros((2, 3, 5), np.float32)
    history[:, -1, :2] = [[-0.4, 0.7], [0.6, -0.1]]
    history[:, 0, :2] = 0.9  # long ago
    for make in (np.asarray, jnp.asarray):
        for name, wanted in (("steering", [0.7, -0.1]), ("braking", [0.4, 0.0])):
            np.testing.assert_allclose(current_of(make(history), NAMES, name), wanted)
    assert current_of(np.zeros((2, 0, 5), np.float32), NAMES, "steering").tolist() == [0.0, 0.0]


def test_a_documented_delta_chooses_the_nearest_of_seven_changes_and_adds_it():
    output = make_output(OutputConfig(name="steering", type="discrete_delta", decoding="argmax"))
    assert output.num_units == 7
    assert Bins.of(output.config).names == ("-0.3", "-0.1", "-0.03", "0", "+0.03", "+0.1", "+0.3")
    labels = np.array([[0.0, 0.5], [0.0, 0.5], [0.0, 1.0]], np.float32)
    current = np.array([0.42, 0.51, -0.2], np.float32)
    target = output.target(labels, NAMES, current)
    nearest = Bins.of(output.config).index(target)
    assert nearest.tolist() == [5, 3, 6]
    logits = 10.0 * np.eye(7, dtype=np.float32)[nearest]
    np.testing.assert_allclose(output.decode(logits, current), [0.52, 0.51, 0.1], atol=1e-6)
    error = output.metric(logits, target, current)
    np.testing.assert_allclose(error, [0.02, 0.01, 0.9], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("type", {"type": "guess"}),
        ("num_classes", {"type": "classification", "num_classes": 1}),
        ("classes", {"type": "classification", "classes": (-0.5, 0.5)}),
        ("classes", {"type": "classification", "classes": (-1.0, 0.5, 0.0, 1.0)}),
        ("classes", {"type": "discrete_delta", "classes": (0.0, 0.1)}),
        ("classes", {"type": "discrete_delta", "classes": (0.1, -0.1)}),
        ("edges", {"edges": (-1.0, 0.5)}),
        ("edges", {"edges": (-1.0, 0.5, 0.5, 1.0)}),
        ("exact_tolerance", {"edges": (-1.0, 0.0, 0.5, 1.0), "exact": (0.0, 0.5),
                             "exact_tolerance": 0.25}),
        ("exact_tolerance", {"exact": (0.103,), "exact_tolerance": 0.01}),
    ],
)  # fmt: skip
def test_declarations_that_leave_part_of_the_range_uncovered_are_refused(name, values):
    with pytest.raises(ConfigError, match=rf"^outputs\.steering\.{name} must "):
        OutputConfig(name="steering", **values)


def test_documented_edges_make_the_documented_bins():
    pedal = OutputConfig(name="acceleration", low=0.0, edges=(0.0, 0.2, 0.8, 1.0), exact=(0, 1))
    assert Bins.of(pedal).names == ("0", "(0, 0.2)", "(0.2, 0.8)", "(0.8, 1)", "1")
    wheel = OutputConfig(name="steering", edges=(-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0),
                         exact=(-1.0, 0.0, 1.0))  # fmt: skip
    assert Bins.of(wheel).names == (
        "-1", "(-1, -0.6)", "(-0.6, -0.2)", "(-0.2, 0)", "0", "(0, 0.2)", "(0.2, 0.6)", "(0.6, 1)",
        "1",
    )  # fmt: skip


def test_a_delta_whose_network_cannot_see_its_controls_is_refused():
    delta = OutputConfig(name="steering", type="discrete_delta")
    blind = OutputConfig(name="steering", type="discrete_delta", is_blind=True)
    check_deltas([delta], history_length=1, controls_read=("steering",))
    check_deltas([blind], history_length=1, controls_read=())
    check_deltas([OutputConfig(name="steering")], history_length=0, controls_read=())
    with pytest.raises(ConfigError, match=r"not given its current controls.*another type"):
        check_deltas([delta], history_length=1, controls_read=())
    for output in (delta, blind):
        with pytest.raises(ConfigError, match=r"^data\.history_length must be 1 or more"):
            check_deltas([output], history_length=0, controls_read=("steering",))
