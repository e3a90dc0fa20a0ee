"""A person takes the wheel at once, is listened to, and gives it back."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np
import pytest
from tests.persons import ScriptedPerson
from tests.playing import wait_for
from tests.ports import free_port
from tests.test_trainer import put_on_disk, rows_of
from tests.tiny_run import TinyRun

from charles import presets
from charles.berth import Berth
from charles.config import ServerConfig, TrainConfig
from charles.errors import ExtraMissingError, PadError
from charles.human_samples import HumanSamples
from charles.intake import Intake, sample_spec
from charles.io.game import Scene, Telemetry
from charles.io.pads.recording import RecordingPad
from charles.io.town import TownGame
from charles.link import Link
from charles.observer import Observer, blank_inputs
from charles.options import PlayOptions
from charles.play import describe, play
from charles.play_config import UnstuckConfig
from charles.player import Player
from charles.policy import Policy
from charles.sample import SampleFlag, SampleSpec, is_held_out
from charles.server import Server
from charles.staging import Staged, Stager
from charles.takeover import Takeover, world_to_learn_in
from charles.takeover_config import TakeoverConfig
from charles.trainer import train

CONTROLS = ("acceleration_braking", "steering")
SCENE = Scene(seed=5, weather="clear", time_of_day_h=12.0)


@pytest.mark.skipif(os.path.exists("/dev/input/event0"), reason="there may be a pad")
def test_a_pad_that_is_missing_at_the_start_is_a_clear_error(run):
    options = PlayOptions(checkpoint=run.directory, takeover=TakeoverConfig(kind="evdev"))
    with pytest.raises((PadError, ExtraMissingError), match=r"No pad or wheel|charles\[evdev\]"):
        play(options, stop=threading.Event())


def test_worlds_of_the_evaluation_and_held_out_ones_are_not_learned_in():
    config = TrainConfig()
    assert world_to_learn_in(100_000, config) in range(*config.game.seeds)
    assert world_to_learn_in(7, config) == 7
    held = replace(config, data=replace(config.data, validation_share=0.5))
    worlds = {world_to_learn_in(seed, held) for seed in range(1000)}
    assert not any(is_held_out(world, 0.5) for world in worlds)
    assert len(worlds) > 300


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = TinyRun(tmp_path_factory.mktemp("takeover") / "run")
    made.save(1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def policy(run):
    made = Policy(run.config)
    made.warm_up()
    made.variables = made.place({"params": run.state.params, "stats": run.state.stats})
    return made


def make_player(run, policy, person, *, human=None, unstuck=None, late_ms=0.0, **settings):
    play_config = replace(run.config.play, unstuck=unstuck or run.config.play.unstuck)
    collect = replace(run.config.collect, latency_offset_ms=late_ms)
    policy.config = replace(run.config, play=play_config, collect=collect)
    game = TownGame(run.config.game, height=36, width=64, seed=0)
    stager = Stager(policy, run.checkpoint_dir)
    stager.newest = Staged(1, policy.variables)
    pad = RecordingPad()
    takeover = Takeover(person, **{"release_s": 0.05, **settings})
    player = Player(game, pad, policy, stager, takeover=takeover, human=human)
    player.begin(SCENE)
    return player, pad


def test_the_pad_has_the_persons_controls_in_the_tick_after_the_touch(run, policy):
    person = ScriptedPerson(release_s=0.05)
    player, pad = make_player(run, policy, person)
    player.tick()
    person.move(pedal=0.75, steering=-0.5)
    player.tick()
    assert pad.updates[-1].controls.tolist() == [0.75, -0.5]
    assert player.is_human_driving
    person.move()
    player.tick()
    assert not pad.updates[-1].controls.any()
    time.sleep(0.06)
    player.tick()
    assert not player.is_human_driving
    assert pad.updates[-1].controls.tolist() == player.controls.tolist()


def test_the_players_pad_is_neutral_where_the_game_reads_the_persons(run, policy):
    person = ScriptedPerson()
    player, pad = make_player(run, policy, person, passes_through=False)
    player.tick()
    person.move(pedal=1.0)
    player.tick()
    assert player.is_human_driving
    assert not pad.updates[-1].controls.any()


def test_a_person_who_stands_still_is_not_put_elsewhere(run, policy):
    person = ScriptedPerson()
    stuck = UnstuckConfig(window_s=0.2, distance_m=1000.0)  # whatever it does, it is stuck
    player, _ = make_player(run, policy, person, unstuck=stuck)
    player.tick()
    person.move(pedal=-1.0)
    for _ in range(10):
        player.tick()
    assert player.tally.unstucks == 0


def telemetry_of(**changes):
    nothing = np.zeros(2, np.float32)
    return Telemetry(captured_ns=1, controls=nothing, label=None, speed_mps=3.0, purpose=nothing,
                     location=(0.0, 0.0, 0.0), **changes)  # fmt: skip


def test_controls_that_no_game_tells_are_remembered_as_they_were_applied():
    observer = Observer(SampleSpec(height=8, width=8, history_length=2))
    applied = np.array([0.5, -0.25], np.float32)
    observer.remember(telemetry_of(has_controls=False), applied)
    assert observer.current.tolist() == [0.5, -0.25]
    observer.remember(telemetry_of(), applied)
    assert observer.current.tolist() == [0.0, 0.0]


class Untold(TownGame):
    """A Town that does not tell its controls, as a window does not."""

    def tick(self):
        told = super().tick()
        return replace(told, controls=np.zeros(2, np.float32), has_controls=False)


def test_a_player_remembers_what_it_put_on_the_pad_of_a_game_that_does_not_tell(run, policy):
    policy.config = run.config
    stager = Stager(policy, run.checkpoint_dir)
    stager.newest = Staged(1, policy.untrained(1))
    game = Untold(run.config.game, height=36, width=64, seed=0)
    pad = RecordingPad()
    player = Player(game, pad, policy, stager)
    player.begin(SCENE)
    for _ in range(4):
        player.tick()
    newest = player._observer.inputs["history"][0, :, :2]
    put = [update.controls for update in list(pad.updates)[:3]]
    np.testing.assert_array_equal(newest, put)
    assert np.abs(newest).max() > 0


class Kept:
    """Stands for HumanSamples: keeps the labels, and how often nobody drove."""

    def __init__(self):
        self.labels, self.ended_before = [], []
        self._ended = 0

    def add(self, inputs, telemetry, label, *, captured_ns, may_be_over):
        self.labels.append(float(label[1]))
        self.ended_before.append(self._ended)

    def end(self):
        self._ended += 1


@pytest.mark.parametrize("late", [0, 3])
def test_a_persons_label_waits_for_the_frame_that_shows_what_it_did(run, policy, late):
    """As a collector's does: with frames three instants late, so is the label, to the instant."""
    person, kept = ScriptedPerson(release_s=0.02), Kept()
    player, _ = make_player(run, policy, person, human=kept, late_ms=late * 1000 / 30)
    for _ in range(5):
        player.tick()
    steers = [0.1, 0.2, 0.3, 0.4, 0.5]
    for steering in steers:
        person.move(pedal=1.0, steering=steering)
        player.tick()
    assert kept.labels == pytest.approx(steers[: 5 - late])
    assert set(kept.ended_before) == {5 + late}
    person.move()
    for _ in range(late):
        player.tick()
    assert kept.labels == pytest.approx(steers)


def test_what_was_put_on_the_pad_waits_for_the_frame_that_shows_it(run, policy):
    """In a game that tells no controls: three instants are remembered as if three later."""
    collect = replace(run.config.collect, latency_offset_ms=100.0)
    policy.config = replace(run.config, collect=collect)
    stager = Stager(policy, run.checkpoint_dir)
    stager.newest = Staged(1, policy.untrained(1))
    pad = RecordingPad()
    player = Player(Untold(run.config.game, height=36, width=64, seed=0), pad, policy, stager)
    player.begin(SCENE)
    for _ in range(8):
        player.tick()
    newest = player._observer.inputs["history"][0, -1, :2]
    put = [update.controls for update in list(pad.updates)]
    np.testing.assert_array_equal(newest, put[-5])
    assert np.abs(newest).max() > 0


@pytest.fixture
def intake(tmp_path):
    config = replace(presets.tiny(), run_dir=tmp_path / "run")
    with closing(Intake(config)) as made:
        made.start()
        yield made


@pytest.fixture
def berth(intake):
    made = Berth()
    made.moor(intake.open_lane(3))
    yield made
    made.leave()
    intake.close_lane(3)


def show(samples, spec, number, *, may_be_over=False):
    inputs = blank_inputs(spec)
    inputs["pixels"][:] = number
    inputs["history"][:] = number
    samples.add(inputs, telemetry_of(), np.array([0.5, number / 100], np.float32),
                captured_ns=1000 + number, may_be_over=may_be_over)  # fmt: skip


def received(intake, count):
    wait_for(lambda: intake.view().human_held >= count)
    return intake.pool.headers[intake._human.slots()]


def test_what_a_person_shows_is_a_sample_with_their_controls_as_its_label(intake, berth):
    spec = intake.pool.spec.sample
    samples = HumanSamples(berth, spec)
    show(samples, spec, 1)
    show(samples, spec, 2)
    samples.end()
    show(samples, spec, 3)
    headers = received(intake, 3)
    np.testing.assert_allclose(headers["label"][:, 1], [0.01, 0.02, 0.03])
    assert headers["captured_ns"].tolist() == [1001, 1002, 1003]
    assert set(headers["flags"].tolist()) == {SampleFlag.HUMAN | SampleFlag.TAKEOVER}
    first, second, third = headers["episode"].tolist()
    assert first == second != third
    assert (headers["history"][1] == 2).all()
    assert (intake.pool.pixels[intake._human.slots()[2]] == 3).all()
    assert samples.tally.sent == 3


def test_nobody_learns_to_let_go_but_coasting_is_learned(intake, berth):
    spec = intake.pool.spec.sample
    samples = HumanSamples(berth, spec)
    show(samples, spec, 1)
    show(samples, spec, 2, may_be_over=True)
    show(samples, spec, 3)  # it was coasting
    show(samples, spec, 4, may_be_over=True)
    show(samples, spec, 5, may_be_over=True)
    samples.end()  # these were not
    headers = received(intake, 3)
    np.testing.assert_allclose(headers["label"][:, 1], [0.01, 0.02, 0.03])
    assert (samples.tally.sent, samples.tally.let_go) == (3, 2)
    intake.exchange.check()


def test_without_a_server_samples_are_dropped_and_counted_and_driving_goes_on(intake, berth):
    spec = intake.pool.spec.sample
    samples = HumanSamples(berth, spec)
    show(samples, spec, 1)
    show(samples, spec, 2, may_be_over=True)
    berth.leave()
    show(samples, spec, 3)
    samples.end()
    assert samples.tally.without_server == 2
    berth.moor(intake.open_lane(4))
    show(samples, spec, 4)
    assert received(intake, 2)["label"][1, 1] == pytest.approx(0.04)
    berth.leave()
    intake.close_lane(4)
    intake.exchange.check()


def test_a_trainer_without_a_free_slot_loses_samples_and_not_the_driver(tmp_path):
    config = replace(presets.tiny(), run_dir=tmp_path / "run")
    with closing(Intake(config)) as intake:  # not started: nobody takes slots out of the lane
        berth = Berth()
        berth.moor(intake.open_lane(1))
        spec = sample_spec(config)
        samples = HumanSamples(berth, spec)
        for number in range(80):
            show(samples, spec, number)
        assert (samples.tally.sent, samples.tally.starved) == (64, 16)
        berth.leave()


def test_a_server_of_other_samples_gets_none(berth):
    samples = HumanSamples(berth, SampleSpec(height=8, width=8))
    show(samples, SampleSpec(height=8, width=8), 1)
    assert samples.tally.without_server == 1


def test_a_player_has_a_lane_only_if_it_asks_and_lets_go_of_it_before_its_server_closes_it(
    tmp_path, intake
):
    config = replace(presets.tiny(), run_dir=tmp_path / "run",
                     server=ServerConfig(port=free_port()))  # fmt: skip
    with ExitStack() as stack:
        server = stack.enter_context(closing(Server(config)))
        server.open_lane, server.close_lane = intake.open_lane, intake.close_lane
        server.start()
        plain = stack.enter_context(Link(config.server))
        wait_for(lambda: plain.welcome is not None)
        assert plain.welcome.lane is None
        link = stack.enter_context(Link(config.server, wants_lane=True))
        wait_for(lambda: link.welcome is not None)
        spec = intake.pool.spec.sample
        samples = HumanSamples(link.berth, spec)
        wait_for(lambda: (show(samples, spec, 1), samples.tally.sent)[1])
        received(intake, 1)
        server.close()

        def is_left():
            with link.berth.lane() as lane:
                return lane is None

        wait_for(is_left)
        show(samples, spec, 2)
        assert samples.tally.without_server > 0
        server = stack.enter_context(closing(Server(config)))
        server.open_lane, server.close_lane = lambda _id: intake.open_lane(77), lambda _id: None
        server.start()
        before = samples.tally.sent
        wait_for(lambda: (show(samples, spec, 3), samples.tally.sent)[1] > before)
    for number in list(intake._lanes):
        intake.close_lane(number)
    intake.exchange.check()


def test_too_many_players_with_a_lane_are_refused_with_the_setting(tmp_path, intake):
    config = replace(presets.tiny(), run_dir=tmp_path / "run",
                     server=ServerConfig(port=free_port()))  # fmt: skip
    for number in range(10, 13):
        intake.open_lane(number)
    with closing(Server(config)) as server:
        server.open_lane, server.close_lane = intake.open_lane, intake.close_lane
        server.start()
        options = PlayOptions(server=config.server, takeover=TakeoverConfig(kind="evdev"))
        with pytest.raises(Exception, match=r"data\.max_collectors"):
            play(options, stop=threading.Event(), make_person=lambda _: ScriptedPerson())


PLAYER = """
import sys
import threading
import time
from tests.persons import ScriptedPerson
from charles.config import ServerConfig
from charles.io.pads.command import CommandPad
from charles.options import PlayOptions
from charles.play import play
from charles.takeover_config import TakeoverConfig
from charles.timing import clock_ns

class Timed(CommandPad):
    def update(self, controls):
        super().update(controls)
        if person.touched_ns and abs(controls[1] - person.axes.steering) < 1e-6:
            print("pad", (clock_ns() - person.touched_ns) / 1e6, flush=True)
            person.touched_ns = 0

def drive():
    for line in sys.stdin:
        pedal, steering = map(float, line.split())
        person.move(pedal=pedal, steering=steering)

if __name__ == "__main__":
    person = ScriptedPerson(release_s=0.2)
    threading.Thread(target=drive, daemon=True).start()
    options = PlayOptions(
        server=ServerConfig(port=int(sys.argv[1])), console=False,
        takeover=TakeoverConfig(kind="evdev", release_s=0.2),
    )
    report = play(options, make_pad=Timed, make_person=lambda _: person)
    print("report", report.takeover, report.human, flush=True)
"""


def person_driving(player, table, stop, said):
    """Move the pad until training has seen it, then let go; collects what the player prints."""
    reader = threading.Thread(target=lambda: said.extend(player.stdout))
    reader.start()
    ends_s, steering = time.monotonic() + 100, 0.4
    try:
        while not any(float(row["human/latency_s"]) for row in rows_of_or_none(table)):
            assert time.monotonic() < ends_s, "no step with what the person shows"
            assert player.poll() is None
            steering = -steering
            player.stdin.write(f"0.5 {steering}\n")
            player.stdin.flush()
            time.sleep(0.1)
        player.stdin.write("0 0\n")
        player.stdin.flush()
        time.sleep(0.5)
    finally:
        player.terminate()
        player.wait(30)
        reader.join()
        stop.set()


def rows_of_or_none(table):
    return rows_of(table) if table.exists() else []


def test_what_a_person_shows_is_in_a_training_batch_within_ten_seconds(tmp_path):
    """Trainer and player are processes of their own, at work on Town."""
    config = replace(presets.tiny(), run_dir=tmp_path / "run", steps=1_000_000,
                     server=ServerConfig(port=free_port()))  # fmt: skip
    config = replace(config, data=replace(config.data, replay_ratio=1e6),
                     checkpoint=replace(config.checkpoint, every_steps=50))  # fmt: skip
    put_on_disk(config, 128)
    script = tmp_path / "player.py"
    script.write_text(PLAYER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])}
    stop, said, table = threading.Event(), [], config.run_dir / "human.csv"
    command = [sys.executable, str(script), str(config.server.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=environment) as player:  # fmt: skip
        watching = threading.Thread(target=person_driving, args=(player, table, stop, said))
        watching.start()
        train(config, console=False, stop=stop)
        watching.join()
    (latency_s,) = {float(row["human/latency_s"]) for row in rows_of(table)} - {0.0}
    assert 0 < latency_s < 10
    assert float(rows_of(table)[-1]["human/received"]) > 0
    touches_ms = [float(line.split()[1]) for line in said if line.startswith("pad")]
    assert touches_ms
    assert "takeovers=1" in said[-1]
    print(f"{latency_s=:.3f}, touch to pad {sorted(touches_ms)} ms, {said[-1]}")


def test_a_report_says_what_became_of_a_persons_turns(run, policy, berth):
    person = ScriptedPerson(release_s=0.05)
    player, _ = make_player(run, policy, person, human=HumanSamples(berth, policy.spec))
    player.tick()
    person.move(steering=0.5)
    player.tick()
    text = describe(player.report())
    assert "a person took the wheel 1 times, for 1 ticks: 0 samples sent" in text
    assert "1 for lack of a server" in text  # the pool is of samples that remember more
