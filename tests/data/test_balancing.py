import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.config import BalancingConfig
from charles.data.balancing import make_balancer
from charles.errors import ConfigError
from charles.outputs import ACCELERATION_BRAKING, STEERING, Bins, OutputConfig

NAMES = ("acceleration_braking", "steering")
OUTPUTS = (ACCELERATION_BRAKING, STEERING)
NEVER = 10**9
REST = np.zeros(2, np.float32)


def make(version="v3", patience=NEVER, outputs=OUTPUTS, seed=0):
    config = BalancingConfig(version=version, patience=patience)
    return make_balancer(config, outputs, NAMES, seed=seed)


def labels(count, seed=0):
    """Labels as driving has them: mostly straight on, exact values often, hard turns rarely."""
    rng = np.random.default_rng(seed)
    values = np.clip(rng.normal(0, 0.5, (count, 2)), -1, 1)
    values[rng.random((count, 2)) < 0.3] = 0.0
    return values.astype(np.float32)


def collect(balancer, stream):
    """Play a stream of labels; returns the sets as (output, labels of its samples)."""
    sets, captured = [], []
    for label in stream:
        output = balancer.wants(label, REST)
        if output is not None:
            captured.append(label)
            assert balancer.add(output, label, REST, len(captured) - 1) == []
        sets += [(out, np.array([captured[s] for s in slots]), slots)
                 for out, slots in balancer.take_completed()]  # fmt: skip
    return sets, len(captured)


@pytest.mark.parametrize("seed", range(3))
def test_every_set_has_exactly_one_sample_of_each_bin_whatever_the_stream(seed):
    balancer = make(seed=seed)
    sets, _ = collect(balancer, labels(20_000, seed))
    assert {output for output, _, _ in sets} == {0, 1}
    for output, chosen, _ in sets:
        bins = Bins.of(OUTPUTS[output])
        which = bins.index(chosen[:, output])
        assert sorted(which.tolist()) == list(range(len(bins)))
    for output, report in enumerate(balancer.report()):
        count = sum(out == output for out, _, _ in sets)
        assert report.num_sets == count
        assert report.achieved == (count,) * len(report.bins)
        assert report.short == (0,) * len(report.bins)
        assert sum(report.target) == pytest.approx(1)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**31),
    st.integers(1, 60),
    st.sampled_from(["v3", "none"]),
    st.integers(0, 400),
)
def test_every_captured_slot_leaves_exactly_once(seed, patience, version, length):
    balancer = make(version, patience, seed=seed)
    sets, captured = collect(balancer, labels(length, seed))
    slots = [slot for _, _, slots in sets for slot in slots] + balancer.abandon()
    assert sorted(slots) == list(range(captured))
    assert balancer.abandon() == [] == balancer.take_completed()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 500))
def test_unfinished_sets_never_hold_more_slots_than_promised(seed, patience):
    balancer = make(patience=patience, seed=seed)
    held = 0
    for label in labels(300, seed):
        output = balancer.wants(label, REST)
        held -= sum(len(slots) for _, slots in balancer.take_completed())
        if output is not None:
            balancer.add(output, label, REST, 0)
            held += 1
        assert held <= balancer.max_slots


def test_bin_that_is_never_met_does_not_block_and_is_reported_short():
    patience = 50
    balancer = make(patience=patience)
    stream = labels(5000)
    stream[:, 1] = np.abs(stream[:, 1])  # the game never steers left
    sets, _ = collect(balancer, stream)
    assert sum(output == 1 for output, _, _ in sets) > 20
    report = balancer.report()[1]
    left = [name.startswith(("(-", "-")) for name in report.bins]
    for is_left, achieved, short in zip(left, report.achieved, report.short, strict=True):
        assert (achieved == 0) is is_left
        if is_left:
            assert short == min(report.num_sets, 200)


def test_absent_bins_are_not_waited_for():
    patience = 20
    balancer = make(patience=patience, outputs=(STEERING,))
    values = np.tile(np.array([[0, 0.05], [0, 0.15]], np.float32), (1000, 1))
    sets, _ = collect(balancer, values)
    sizes = [len(slots) for _, _, slots in sets]
    assert set(sizes) == {2}
    waiting = 20 * patience // (patience + 2)
    # While nothing is known each set waits out its patience; from then on a pair makes a set.
    assert len(sets) == pytest.approx(waiting + (2000 - 20 * patience) / 2, rel=0.02)


def test_balanced_labels_are_flat_where_the_stream_is_not():
    stream = labels(20_000)
    bins = Bins.of(STEERING)
    before = np.bincount(bins.index(stream[:, 1]), minlength=len(bins)) / len(stream)
    sets, _ = collect(make(patience=2000), stream)
    chosen = np.concatenate([values[:, 1] for output, values, _ in sets if output == 1])
    after = np.bincount(bins.index(chosen), minlength=len(bins)) / len(chosen)
    assert before.max() / before.min() > 5
    assert after.max() / after.min() < 1.1


def test_wanted_by_both_goes_to_the_output_that_has_fewer():
    balancer = make()
    rng = np.random.default_rng(0)
    taken = [0, 0]
    for _ in range(12):
        label = rng.uniform(-1, 1, 2).astype(np.float32)
        output = balancer.wants(label, REST)
        if output is not None:
            balancer.add(output, label, REST, 0)
            taken[output] += 1
    assert abs(taken[0] - taken[1]) <= 3


def test_without_balancing_every_sample_counts_and_outputs_alternate():
    sets, captured = collect(make("none"), labels(10))
    assert captured == 10
    assert [output for output, _, _ in sets] == [0, 1] * 5


def test_another_declaration_of_an_output_changes_its_bins_with_no_other_edit():
    coarse = OutputConfig(name="braking", low=0.0, bin_width=0.5, exact=(0.0,))
    balancer = make(outputs=(coarse, STEERING))
    assert balancer.report()[0].bins == ("0", "(0, 0.5)", "(0.5, 1)")
    sets, _ = collect(balancer, labels(2000))
    braking = [sorted(values[:, 0]) for output, values, _ in sets if output == 0]
    for values in braking:
        assert values[0] < -0.5 < values[1] < 0.0
        assert values[2] > -0.005


def test_impossible_settings_are_refused_with_numbers():
    config = BalancingConfig()
    with pytest.raises(ConfigError, match=r"exceed the 44 slots .* got 44"):
        make_balancer(config, OUTPUTS, NAMES, seed=0, slots_per_collector=44)
    make_balancer(config, OUTPUTS, NAMES, seed=0, slots_per_collector=45)
    with pytest.raises(ConfigError, match="one of the game's controls"):
        make_balancer(config, (OutputConfig(name="gear"),), NAMES, seed=0)


@pytest.mark.parametrize("version", ["v3", "none"])
def test_an_unwanted_output_gets_nothing_until_it_is_wanted_again(version):
    balancer = make(version, patience=50)
    stream = iter(labels(10_000))

    def chosen(count):
        outputs = []
        for label in itertools.islice(stream, count):
            output = balancer.wants(label, REST)
            if output is not None:
                balancer.add(output, label, REST, slot=len(outputs))
                outputs.append(output)
            balancer.take_completed()
        return outputs

    balancer.unwanted = frozenset({0})
    assert set(chosen(1_000)) == {1}
    balancer.unwanted = frozenset()
    assert set(chosen(1_000)) == {0, 1}
    balancer.unwanted = frozenset({0, 1})
    assert chosen(100) == []
