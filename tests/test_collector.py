"""A collector's samples are one instant of the game, balanced, and published whole."""

import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from tests.persons import ScriptedPerson

from charles import presets
from charles.collect_config import DaggerConfig, PerturbConfig
from charles.collector import Collector
from charles.config import BalancingConfig
from charles.data.exchange import Exchange
from charles.data.pixels import to_pixels
from charles.data.pool import Lane, PoolSpec
from charles.data.shm import unique_name
from charles.errors import ConfigError
from charles.intake import sample_spec
from charles.io.game import Scene
from charles.io.human.driven import DrivenGame
from charles.io.town import TownGame
from charles.messages import Demand
from charles.outputs import Bins, OutputConfig
from charles.play_config import UnstuckConfig
from charles.sample import SampleFlag, is_held_out
from charles.town_config import TownConfig
from charles.ui.collect_report import describe


class Watched:
    """A game that remembers what it told and showed at every instant."""

    def __init__(self, game):
        self._game = game
        self.told = {}
        self.pushes = 0

    def __getattr__(self, name):
        return getattr(self._game, name)

    def tick(self):
        self.last = self._game.tick()
        self.told[len(self.told) + 1] = self.last
        return self.last

    def act(self, controls):
        self.pushes += 1
        self._game.act(controls)


@pytest.fixture
def config(tmp_path):
    config = replace(presets.tiny(), run_dir=tmp_path / "run")
    return replace(config, collect=replace(config.collect, scene_s=20.0))


@pytest.fixture
def exchange(config):
    spec = PoolSpec(name=unique_name("pool"), num_slots=200, sample=sample_spec(config))
    with closing(Exchange(spec, max_collectors=1, slots_per_collector=64)) as made:
        yield made


@pytest.fixture
def lane(exchange):
    with closing(Lane(exchange.open_lane(1))) as made:
        yield made


def make_collector(config, lane, game, stop=None):
    return Collector(game, config, lane, collector_id=1, seed=1, stop=stop or threading.Event())


def collect(collector, exchange, instants):
    """Published slots; what is published is taken at once, so that the lane never starves."""
    slots = []
    for _ in range(instants):
        collector.step()
        slots.extend(exchange.poll(1).tolist())
        exchange.refill()
    return slots


@pytest.fixture
def town(config):
    with closing(TownGame(config.game, height=36, width=64, seed=5)) as made:
        yield Watched(made)


def test_samples_are_what_the_game_told_at_their_instant(config, exchange, lane, town):
    collector = make_collector(config, lane, town)
    slots = collect(collector, exchange, 500)
    assert len(slots) > 50
    headers = exchange.pool.headers
    for slot in slots:
        header = headers[slot]
        told = town.told[int(header["frame_index"])]
        assert header["captured_ns"] == told.captured_ns
        np.testing.assert_array_equal(header["label"], told.label)
        np.testing.assert_array_equal(header["controls"], told.controls)
        np.testing.assert_array_equal(header["purpose"], told.purpose)
        assert header["speed_mps"] == np.float32(told.speed_mps)
    assert collector.tally.samples >= len(slots)


def test_whoever_plots_hears_of_every_sample_that_is_published_and_of_no_other(
    config, exchange, lane, town
):
    heard = []
    collector = Collector(
        town, config, lane, collector_id=1, seed=1, stop=threading.Event(), on_kept=heard.append
    )
    slots = collect(collector, exchange, 400)
    assert len(slots) > 50
    labels = [town.told[int(exchange.pool.headers[slot]["frame_index"])].label for slot in slots]
    np.testing.assert_array_equal(np.concatenate(heard), labels)
    assert collector.tally.samples >= len(slots)


@pytest.mark.parametrize(("frames", "told"), [(3, 0), (0, 2)])
def test_late_frames_and_late_controls_are_paired_with_those_of_their_own_instant(
    config, exchange, lane, frames, told
):
    """What a town with a known delay shows and tells belongs together, as its seed proves."""
    late = replace(config.game, town=TownConfig(frame_delay=frames, telemetry_delay=told))
    offset_ms = (frames - told) * 1000 / 30
    offset = replace(
        config.collect, latency_offset_ms=offset_ms, perturb=PerturbConfig(every_s=0.0)
    )
    config = replace(config, game=late, collect=offset)
    with (
        closing(TownGame(late, height=36, width=64, seed=5)) as game,
        closing(TownGame(replace(late, town=TownConfig()), height=36, width=64, seed=5)) as truth,
    ):
        collector = make_collector(config, lane, game)
        slots = collect(collector, exchange, 240)
        scene = Scene(seed=game.world.config.seed)
        assert collector.tally.scenes == 1
        truth.reset(scene)
        seen, told_at, frame = {}, {}, np.zeros((36, 64, 3), np.uint8)
        for _ in range(240):
            telemetry = truth.tick()
            told_at[telemetry.captured_ns] = telemetry
            truth.grab(frame)
            pixels = np.zeros(lane.spec.pool.sample.frame_shape, np.uint8)
            to_pixels(frame, lane.spec.pool.sample, pixels)
            seen[telemetry.captured_ns] = pixels
    assert len(slots) > 20
    assert collector.tally.collisions == 0
    for slot in slots:
        header = exchange.pool.headers[slot]
        # The frame was captured then, and shows the world of so many instants before.
        of_ns = int(header["captured_ns"]) - frames * 33_333_333
        np.testing.assert_array_equal(header["label"], told_at[of_ns].label)
        np.testing.assert_array_equal(exchange.pool.pixels[slot], seen[of_ns])
        first_ns = min(told_at)  # at the start nothing older is there to be told
        read_ns = of_ns if frames else max(of_ns - told * 33_333_333, first_ns)
        assert header["speed_mps"] == np.float32(told_at[read_ns].speed_mps)


def test_a_person_may_drive_a_game_that_has_a_driver_and_is_the_one_to_learn_from(
    config, exchange, lane
):
    person = ScriptedPerson(release_s=0.01)
    config = replace(config, collect=replace(config.collect, scene_s=1000.0))
    with closing(TownGame(config.game, height=36, width=64, seed=5)) as town:
        game = DrivenGame(town, person)
        collector = make_collector(config, lane, game)
        assert collect(collector, exchange, 5) == []
        assert collector.tally.unlabelled == 5  # nobody holds the pad
        rng, slots = np.random.default_rng(0), []
        for _ in range(200):
            person.move(pedal=rng.uniform(-0.2, 1.0), steering=rng.uniform(-0.3, 0.3))
            slots += collect(collector, exchange, 1)
    assert len(slots) > 10
    headers = exchange.pool.headers[slots]
    assert set(headers["flags"].tolist()) == {SampleFlag.HUMAN}
    # What the game tells to have applied is what the person did at the instant before.
    told = {int(one["frame_index"]): one for one in headers}
    pairs = [(told[n]["label"], told[n + 1]["controls"]) for n in told if n + 1 in told]
    assert len(pairs) > 3
    np.testing.assert_allclose(*np.swapaxes(pairs, 0, 1), atol=1e-6)


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4"])
def test_every_version_publishes_and_gives_back_what_it_replaces(
    config, exchange, lane, town, version
):
    balancing = replace(config.data.balancing, version=version)
    wide = tuple(replace(output, bin_width=0.5) for output in config.outputs)
    config = replace(config, data=replace(config.data, balancing=balancing), outputs=wide)
    collector = make_collector(config, lane, town)
    slots = collect(collector, exchange, 600)
    assert len(slots) > 30
    held = collector.tally.samples - len(slots)
    kept = len(collector.balancer.abandon())
    assert held >= kept
    assert (held > kept) is (version == "v4")  # only there a sample may be given back
    assert collector.tally.starved == 0


def test_the_bins_of_a_delta_follow_what_applied_at_the_instant_before(
    config, exchange, lane, town
):
    delta = OutputConfig(name="steering", type="discrete_delta", is_blind=True)
    config = replace(config, outputs=(config.outputs[0], delta))
    slots = collect(make_collector(config, lane, town), exchange, 600)
    bins, met = Bins.of(delta), set()
    for slot in slots:
        header = exchange.pool.headers[slot]
        before = town.told.get(int(header["frame_index"]) - 1)
        newest = header["history"][-1, :2]
        if before is not None and newest.any():
            np.testing.assert_array_equal(newest, before.controls)
        if header["picked_for"] == 1:
            met.add(int(bins.index(header["label"][1] - newest[1])))
    assert len(met) > 3


def test_pixels_are_of_the_same_instant_as_the_label(config, exchange, lane, town):
    collector = make_collector(config, lane, town)
    spec = lane.spec.pool.sample
    shown = {}
    checked = 0
    for _ in range(500):
        collector.step()
        shown[len(town.told)] = pixels_of_now(town, spec)
        for slot in exchange.poll(1).tolist():
            index = int(exchange.pool.headers[slot]["frame_index"])
            np.testing.assert_array_equal(exchange.pool.pixels[slot], shown[index])
            checked += 1
        exchange.refill()
    assert checked > 10


def pixels_of_now(town, spec):
    """What the game shows at its present instant, as it is stored."""
    frame, out = np.empty((36, 64, 3), np.uint8), np.empty(spec.pixels_shape, np.uint8)
    town.grab(frame)
    to_pixels(frame, spec, out)
    return out


def test_the_history_ends_before_the_instant(config, exchange, lane, town):
    collector = make_collector(config, lane, town)
    compared = 0
    for slot in collect(collector, exchange, 400):
        header = exchange.pool.headers[slot]
        index = int(header["frame_index"])
        before = town.told.get(index - 1)
        last = header["history"][-1]
        if before is not None and last.any():
            np.testing.assert_array_equal(last[:2], before.controls)
            compared += 1
    assert compared > 20


def test_pushed_samples_carry_the_experts_correction(config, exchange, lane, town):
    config = replace(
        config,
        collect=replace(config.collect, perturb=replace(config.collect.perturb, every_s=0.5)),
    )
    collector = make_collector(config, lane, town)
    slots = collect(collector, exchange, 600)
    flags = exchange.pool.headers["flags"][slots]
    pushed = [slot for slot, flag in zip(slots, flags, strict=True) if flag & SampleFlag.PERTURBED]
    assert town.pushes > 20
    assert len(pushed) > 5
    headers = exchange.pool.headers[pushed]
    assert np.abs(headers["label"] - headers["controls"]).max() > 0.05


def test_a_game_that_cannot_advise_is_never_pushed(config, exchange, lane, town):
    town.is_advising = False
    collector = make_collector(config, lane, town)
    collect(collector, exchange, 300)
    assert town.pushes == 0


def test_a_starved_collector_of_a_stepped_game_waits_and_stops_when_asked(
    config, exchange, lane, town
):
    stop = threading.Event()
    collector = make_collector(config, lane, town, stop)
    while collector.tally.starved == 0:  # nobody polls: the quota runs out
        collector.step()
        if len(town.told) > 3000:
            pytest.fail("the quota never ran out")
    stop.set()
    collector.step()
    exchange.check()


def test_a_game_with_other_controls_is_refused(config, exchange, lane, town):
    town.controls = ("gas",)
    with pytest.raises(ConfigError, match="gas"):
        make_collector(config, lane, town)


class Taking:
    """A pupil that takes every other turn of ``ticks`` instants, and keeps what it was shown."""

    def __init__(self, ticks, hold):
        self._ticks, self._hold = ticks, hold
        self._now = 0
        self.seen = []

    def step(self):
        self._now += 1
        return self.is_driving

    @property
    def is_driving(self):
        return self._now // self._ticks % 2 == 1

    @property
    def is_due(self):
        return self.is_driving and self._now % self._hold == 0

    def act(self, observer, telemetry):
        self.seen.append((telemetry.captured_ns, observer.frame.copy()))
        return np.array([-1.0, 0.5], np.float32)

    def reset(self):
        pass


@pytest.mark.parametrize("pixel_format", ["rgb", "yuv420"])
def test_the_pupils_driving_is_labelled_by_the_expert(config, town, pixel_format):
    config = replace(config, frame=replace(config.frame, pixel_format=pixel_format))
    spec = PoolSpec(name=unique_name("pool"), num_slots=200, sample=sample_spec(config))
    with (
        closing(Exchange(spec, max_collectors=1, slots_per_collector=64)) as exchange,
        closing(Lane(exchange.open_lane(1))) as lane,
    ):
        collector = make_collector(config, lane, town)
        collector.pupil = pupil = Taking(ticks=30, hold=3)
        slots = collect(collector, exchange, 600)
        headers = exchange.pool.headers[slots]
        driven = headers[headers["flags"] == SampleFlag.ON_POLICY]
        assert len(driven) > 10
        assert len(driven) < len(headers)
        # The pupil's controls hold between its predictions, and the expert disagrees with them.
        held = driven["controls"][:, 0] == -1.0
        assert held.mean() > 0.9
        assert np.abs(driven["label"][:, 0] + 1.0).max() > 0.5
        assert len(pupil.seen) > 60
        shown = dict(pupil.seen)
        for header, pixels in zip(headers, exchange.pool.pixels[slots], strict=True):
            frame = shown.get(int(header["captured_ns"]))
            if frame is not None:
                expected = np.empty(spec.sample.pixels_shape, np.uint8)
                to_pixels(frame, spec.sample, expected)
                np.testing.assert_array_equal(pixels, expected)


def test_a_pupil_needs_an_expert_that_advises(config, lane, town):
    config = replace(config, collect=replace(config.collect, dagger=DaggerConfig(share=0.5)))
    assert make_collector(config, lane, town).takes_pupil
    town.is_advising = False
    assert not make_collector(config, lane, town).takes_pupil


def test_what_the_trainer_has_enough_of_is_left_alone(config, exchange, lane, town):
    collector = make_collector(config, lane, town)
    collector.heed(Demand(short={"weather": "fog"}, full=("steering",)))
    slots = collect(collector, exchange, 500)
    assert len(slots) > 20
    assert set(exchange.pool.headers["picked_for"][slots]) == {0}
    collector.heed(Demand(short={}))
    slots = collect(collector, exchange, 500)
    assert set(exchange.pool.headers["picked_for"][slots]) == {0, 1}


def test_a_weather_that_is_short_comes_with_the_next_scene(config, exchange, lane, town):
    collector = make_collector(config, lane, town)
    for weather in ("fog", "rain", "clear"):
        collector.heed(Demand(short={"weather": weather}))
        collector._ticks_left = 0
        collector.step()
        assert town.world.config.weather == weather


def test_scenes_have_as_much_traffic_as_is_wanted(config, exchange, lane, town):
    collect_config = replace(config.collect, traffic=(2.0, 3.0))
    collector = make_collector(replace(config, collect=collect_config), lane, town)
    usual = config.game.vehicles
    for _ in range(3):
        collector._ticks_left = 0
        collector.step()
        assert 2 * usual <= town.world.config.vehicles <= 3 * usual


class Worlds(Watched):
    """A watched game that remembers which world it showed at every instant."""

    def __init__(self, game):
        super().__init__(game)
        self.shown = {}
        self.seeds = []

    def reset(self, scene):
        self.seeds.append(scene.seed)
        self._game.reset(scene)

    def tick(self):
        self.shown[len(self.told) + 1] = self.seeds[-1]
        return super().tick()


def test_samples_of_held_out_worlds_are_marked_until_there_are_enough(config, exchange, lane, town):
    data = replace(config.data, validation_share=0.5, validation_capacity=8)
    config = replace(config, data=data, collect=replace(config.collect, scene_s=3.0))
    worlds = Worlds(town._game)
    collector = make_collector(config, lane, worlds)
    kinds = set()
    for slot in collect(collector, exchange, 450):
        header = exchange.pool.headers[slot]
        seed = worlds.shown[int(header["frame_index"])]
        is_marked = bool(header["flags"] & SampleFlag.HELD_OUT)
        assert is_marked == is_held_out(seed, 0.5)
        kinds.add(is_marked)
    assert kinds == {True, False}
    collector.heed(Demand(short={}, is_validation_full=True))
    before = len(worlds.seeds)
    collect(collector, exchange, 300)
    assert len(worlds.seeds) - before >= 3
    assert not any(is_held_out(seed, 0.5) for seed in worlds.seeds[before:])


def test_a_range_of_worlds_that_are_all_held_out_does_not_stop_a_collector(
    config, exchange, lane, town
):
    alone = next(seed for seed in range(100) if is_held_out(seed, 0.5))
    data = replace(config.data, validation_share=0.5, validation_capacity=8)
    collector = make_collector(replace(config, data=data), lane, town)
    # No whole configuration may say this; a collector is to live with it all the same.
    object.__setattr__(collector._config.game, "seeds", (alone, alone + 1))
    collector.heed(Demand(short={}, is_validation_full=True))
    collector.step()
    assert collector.tally.scenes == 1
    assert collector._is_held_out


def test_nothing_is_kept_of_a_fade_before_and_after_a_car_is_put_elsewhere(config, exchange, lane):
    stuck = UnstuckConfig(window_s=0.2, distance_m=1000.0, fade_s=0.1)  # it is stuck at once
    config = replace(config, collect=replace(config.collect, unstuck=stuck))
    game = replace(config.game, is_realtime=True)
    with closing(TownGame(game, height=36, width=64, seed=5)) as town:
        collector = make_collector(config, lane, town)
        while not collector.tally.unstucks:
            collector.step()
        samples = collector.tally.samples
        for _ in range(6):
            collector.step()
        assert (collector.tally.faded, collector.tally.samples) == (6, samples)
        collector.step()
        assert collector.tally.faded == 6


def test_the_report_says_what_was_kept_by_bin_and_how_evenly_instants_came(
    config, exchange, lane, town
):
    collector = make_collector(config, lane, town)
    collect(collector, exchange, instants=300)
    collector.heed(Demand(short={}, torn=2))
    text = describe(collector.report())
    for part in (
        "collected: instants 300",
        "starved 0",
        "torn 2",
        "period p50 33.3 p95",
        "stale 0",
    ):
        assert part in text, part
    lines = text.splitlines()
    assert [line.split(",")[0] for line in lines[2:]] == ["acceleration_braking", "steering"]
    assert "0: " in lines[-1]
    assert "no label" not in text
    told = describe(replace(collector.report(), unlabelled={"stale": 3, "idle": 0}))
    assert "no label: stale 3\n" in told


class Crashing(Watched):
    """A watched game that says at every hundredth instant that the car crashed."""

    def tick(self):
        super().tick()
        number = len(self.told)
        self.told[number] = replace(self.last, is_collision=number % 100 == 0)
        return self.told[number]


def test_samples_of_the_seconds_before_the_expert_crashed_are_not_published(
    config, exchange, lane, town
):
    perturb = replace(config.collect.perturb, every_s=0.0)
    changed = replace(config.collect, drop_before_crash_s=1.0, perturb=perturb, scene_s=600.0)
    collector = make_collector(replace(config, collect=changed), lane, Crashing(town._game))
    slots = collect(collector, exchange, 800)
    numbers = np.array([int(exchange.pool.headers[slot]["frame_index"]) for slot in slots])
    assert len(numbers) > 50
    assert (100 - numbers % 100 > 29).all()
    assert collector.tally.dropped > 5
    assert collector.tally.collisions == 8


def test_holding_back_more_than_there_is_room_for_pauses_and_goes_on(config, exchange, lane, town):
    """Three seconds of every instant are 90 samples, and the lane has 64."""
    perturb = replace(config.collect.perturb, every_s=0.0)
    changed = replace(config.collect, drop_before_crash_s=3.0, perturb=perturb, scene_s=600.0)
    data = replace(config.data, balancing=BalancingConfig(version="none"))
    town.is_realtime = True  # which loses what it has no slot for, instead of waiting
    collector = make_collector(replace(config, collect=changed, data=data), lane, town)
    slots = collect(collector, exchange, 400)
    assert collector.tally.starved > 20
    assert len(slots) > 150


class Broken(Watched):
    """A watched game that does not know its speed at every tenth instant."""

    def tick(self):
        super().tick()
        number = len(self.told)
        speed = float("nan") if number % 10 == 0 else self.last.speed_mps
        self.told[number] = replace(self.last, speed_mps=speed)
        return self.told[number]


def test_nothing_that_is_no_number_is_collected_or_remembered(config, exchange, lane, town):
    perturb = replace(config.collect.perturb, every_s=0.0)
    collected = replace(config.collect, perturb=perturb, scene_s=600.0)
    data = replace(config.data, balancing=BalancingConfig(version="none"))
    changed = replace(config, collect=collected, data=data)
    collector = make_collector(changed, lane, Broken(town._game))
    slots = collect(collector, exchange, 200)
    headers = exchange.pool.headers[slots]
    assert len(slots) > 20
    assert (headers["frame_index"] % 10 != 0).all()
    assert np.isfinite(headers["speed_mps"]).all()
    assert np.isfinite(headers["history"]).all()
    assert collector.tally.unlabelled == 20
