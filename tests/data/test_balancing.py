import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charles.config import BalancingConfig
from charles.data.balancing import WINDOW, make_balancer
from charles.errors import ConfigError
from charles.outputs import ACCELERATION_BRAKING, STEERING, Bins, OutputConfig

NAMES = ("acceleration_braking", "steering")
OUTPUTS = (ACCELERATION_BRAKING, STEERING)
NEVER = 10**9
VERSIONS = ("none", "v1", "v2", "v3", "v4")
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


def collect(balancer, stream, currents=None):
    """Play a stream of labels; returns the sets as (output, labels of its samples, slots), and how
    many samples were captured. Slots that come back are checked to be held ones, each once."""
    sets, captured, held = [], [], set()
    for number, label in enumerate(stream):
        current = REST if currents is None else currents[number]
        output = balancer.wants(label, current)
        if output is not None:
            held.add(len(captured))
            captured.append(label)
            gone = balancer.add(output, label, current, len(captured) - 1)
            assert len(captured) - 1 not in gone, "captured in vain"
            assert held.issuperset(gone)
            held.difference_update(gone)
        for out, slots in balancer.take_completed():
            assert held.issuperset(slots)
            held.difference_update(slots)
            sets.append((out, np.array([captured[slot] for slot in slots]), slots))
    return sets, len(captured)


@pytest.mark.parametrize("version", ["v2", "v3", "v4"])
@pytest.mark.parametrize("seed", range(2))
def test_every_set_has_exactly_one_sample_of_each_bin_whatever_the_stream(version, seed):
    balancer = make(version, seed=seed)
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


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 60), st.sampled_from(VERSIONS), st.integers(0, 400))
def test_every_captured_slot_leaves_exactly_once(seed, patience, version, length):
    balancer = make(version, patience, seed=seed)
    given_back = []
    add = balancer.add

    def add_and_remember(*args):
        gone = add(*args)
        given_back.extend(gone)
        return gone

    balancer.add = add_and_remember
    sets, captured = collect(balancer, labels(length, seed))
    slots = [slot for _, _, slots in sets for slot in slots] + balancer.abandon() + given_back
    assert sorted(slots) == list(range(captured))
    assert balancer.abandon() == [] == balancer.take_completed()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 500), st.sampled_from(VERSIONS))
def test_unfinished_sets_never_hold_more_slots_than_promised(seed, patience, version):
    balancer = make(version, patience, seed=seed)
    held = 0
    for slot, label in enumerate(labels(300, seed)):
        output = balancer.wants(label, REST)
        held -= sum(len(slots) for _, slots in balancer.take_completed())
        if output is not None:
            held += 1 - len(balancer.add(output, label, REST, slot))
        assert held <= balancer.max_slots


@pytest.mark.parametrize("version", ["v3", "v4"])
def test_bin_that_is_never_met_does_not_block_and_is_reported_short(version):
    balancer = make(version, patience=50)
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


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4"])
def test_absent_bins_are_not_waited_for(version):
    patience = 20
    balancer = make(version, patience=patience, outputs=(STEERING,))
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
    with pytest.raises(ConfigError, match=r"exceed the 483 slots .* got 160"):
        make_balancer(BalancingConfig(version="v1"), OUTPUTS, NAMES, seed=0,
                      slots_per_collector=160)  # fmt: skip
    with pytest.raises(ConfigError, match=r"balancing.version must be one of .* got 'v5'"):
        make("v5")
    with pytest.raises(ConfigError, match="one of the game's controls"):
        make_balancer(config, (OutputConfig(name="gear"),), NAMES, seed=0)


@pytest.mark.parametrize("version", VERSIONS)
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


def entangled(count, seed=0):
    """Labels as driving has them: who steers hard does not accelerate, and most is straight on."""
    rng = np.random.default_rng(seed)
    steering = np.clip(rng.normal(0, 0.35, count), -1, 1)
    pedal = np.clip(rng.normal(0.3 - np.abs(steering), 0.35), -1, 1)
    steering[rng.random(count) < 0.3] = 0.0
    return np.stack([pedal, steering], -1).astype(np.float32)


def unevenness(sets, output):
    """Share of all samples that would have to lie in another of an output's bins."""
    bins = Bins.of(OUTPUTS[output])
    chosen = np.concatenate([values[:, output] for _, values, _ in sets])
    shares = np.bincount(bins.index(chosen), minlength=len(bins)) / len(chosen)
    return np.abs(shares - 1 / len(bins)).sum() / 2


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**31), st.sampled_from([300, NEVER]))
def test_version_4_leaves_every_output_more_even_than_version_3_on_the_same_stream(seed, patience):
    stream = entangled(6000, seed)
    third, _ = collect(make("v3", patience, seed=seed), stream)
    fourth, _ = collect(make("v4", patience, seed=seed), stream)
    for output in range(2):
        assert unevenness(fourth, output) < 0.85 * unevenness(third, output)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 300), st.integers(1, 1500))
def test_sets_of_version_4_come_when_those_of_version_3_do_with_the_same_bins(
    seed, patience, length
):
    stream = entangled(length, seed)
    balancers = [make(version, patience, seed=seed) for version in ("v3", "v4")]
    captured = [[], []]
    for label in stream:
        finished = []
        for balancer, seen in zip(balancers, captured, strict=True):
            output = balancer.wants(label, REST)
            if output is not None:
                seen.append(label)
                balancer.add(output, label, REST, len(seen) - 1)
            finished.append(
                [
                    (out, sorted(Bins.of(OUTPUTS[out]).index(np.array(seen)[slots, out]).tolist()))
                    for out, slots in balancer.take_completed()
                ]
            )
        assert finished[0] == finished[1]
    assert balancers[0].report() == balancers[1].report()


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_version_4_weighs_exactly_what_is_held_and_what_was_sent_lately(seed, patience):
    balancer = make("v4", patience, seed=seed)
    sets, _ = collect(balancer, entangled(3000, seed))
    assert len(sets) > WINDOW
    held = balancer.abandon()
    assert held
    for output, counts in enumerate(balancer._counts):
        sent = np.concatenate([values[:, output] for _, values, _ in sets[-WINDOW:]])
        wanted = np.bincount(Bins.of(OUTPUTS[output]).index(sent), minlength=len(counts))
        assert counts == wanted.tolist()


def test_version_4_replaces_a_common_sample_by_one_that_is_rare_for_another_output():
    balancer = make("v4")
    straight, turning = np.array([0.55, 0.0], np.float32), np.array([0.55, 0.85], np.float32)
    others = [np.array([value, 0.0], np.float32) for value in (0.05, 0.15, 0.25, 0.35)]
    for slot, label in enumerate([straight, *others]):  # one of them for steering, the rest pedal
        assert balancer.add(balancer.wants(label, REST), label, REST, slot) == []
    assert balancer.wants(straight, REST) == 0  # the pedal's set has none of it yet
    assert balancer.add(0, straight, REST, 10) == []
    assert balancer.wants(straight, REST) is None  # no better than what is held
    assert balancer.wants(turning, REST) == 1  # a bin that steering lacks comes first
    assert balancer.add(1, turning, REST, 11) == []
    assert balancer.wants(turning, REST) == 0
    assert balancer.add(0, turning, REST, 12) == [10]
    assert balancer.wants(turning, REST) is None


def test_a_set_of_version_1_has_every_combination_and_is_dealt_evenly():
    pedal = {"low": 0.0, "edges": (0.0, 0.2, 0.8, 1.0), "exact": (0.0, 1.0)}
    outputs = (OutputConfig(name="throttle", **pedal), OutputConfig(name="brake", **pedal),
               OutputConfig(name="steering", edges=(-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0),
                            exact=(-1.0, 0.0, 1.0)))  # fmt: skip
    names = ("throttle", "brake", "steering")
    balancer = make_balancer(BalancingConfig(version="v1", patience=NEVER), outputs, names, seed=0)
    assert balancer.max_slots == 225  # as documented
    rng = np.random.default_rng(0)
    stream = rng.uniform((0, 0, -1), 1, (20_000, 3))
    is_exact = rng.random((20_000, 3)) < 0.5
    stream[is_exact] = rng.choice([0.0, 1.0], (20_000, 3))[is_exact]
    stream[:, 2] *= rng.choice([-1, 1], 20_000)
    sets, _ = collect(balancer, stream.astype(np.float32), np.zeros((20_000, 3), np.float32))
    assert len(sets) >= 6
    for start in range(0, len(sets), 3):
        parts = sets[start : start + 3]
        assert [output for output, _, _ in parts] == [0, 1, 2]
        assert [len(slots) for _, _, slots in parts] == [75, 75, 75]
        joint = np.concatenate([values for _, values, _ in parts])
        bins = [Bins.of(output).index(joint[:, n]) for n, output in enumerate(outputs)]
        assert len(set(zip(*(each.tolist() for each in bins), strict=True))) == 225
    for report, size in zip(balancer.report(), (5, 5, 9), strict=True):
        assert report.achieved == (225 // size * (len(sets) // 3),) * size


@pytest.mark.parametrize("version", ["v1", "v3", "v4"])
def test_bins_of_a_delta_follow_the_change_not_the_value(version):
    delta = OutputConfig(name="steering", type="discrete_delta")
    balancer = make(version, outputs=(delta,))
    rng = np.random.default_rng(0)
    changes = rng.choice([-0.5, -0.1, -0.03, 0.0, 0.03, 0.1, 0.3], 500)
    currents = rng.uniform(-0.4, 0.4, (500, 2)).astype(np.float32)
    stream = np.stack([np.zeros(500), currents[:, 1] + changes], -1).astype(np.float32)
    sets, captured = collect(balancer, stream, currents)
    (report,) = balancer.report()
    assert report.seen == tuple(np.unique(changes, return_counts=True)[1])
    assert captured >= len(sets) * 7 > 100
    assert report.achieved == (len(sets),) * 7
