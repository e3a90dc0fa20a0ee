"""The player keeps the pad safe, swaps parameters while it drives, and outlives its server."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import replace

import jax
import numpy as np
import pytest
from tests.playing import playing
from tests.ports import free_port
from tests.tiny_run import TinyRun, make_config

from charles.config import GameConfig, ServerConfig
from charles.errors import CheckpointError, ExtraMissingError, GameError, PadError
from charles.io.game import Scene
from charles.io.pads.command import CommandPad
from charles.io.pads.recording import RecordingPad
from charles.io.pads.watched import WatchedPad
from charles.io.town import TownGame
from charles.options import PlayOptions
from charles.pad_config import PadConfig
from charles.play import describe, play
from charles.play_config import RollbackConfig, UnstuckConfig
from charles.player import Player
from charles.policy import Policy
from charles.run import write_run
from charles.server import Server
from charles.sight import LOST_S
from charles.spectators import Spectators
from charles.stage_log import STAGES, StageLog
from charles.staging import Staged, Stager
from charles.timing import clock_ns

SCENE = Scene(seed=100_000, weather="clear", time_of_day_h=12.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose checkpoint 1 holds untrained parameters."""
    made = TinyRun(tmp_path_factory.mktemp("player") / "run")
    made.save(1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def policy(run):
    made = Policy(run.config)
    made.warm_up()
    return made


def make_player(run, policy, game=None, pad=None, **play_changes):
    policy.config = replace(run.config, play=replace(run.config.play, **play_changes))
    policy.variables = policy.place({"params": run.state.params, "stats": run.state.stats})
    game = game or TownGame(run.config.game, height=36, width=64, seed=0)
    stager = Stager(policy, run.checkpoint_dir)  # not started: the test says what is newest
    stager.newest = Staged(1, policy.variables)
    pad = pad or RecordingPad()
    return Player(game, pad, policy, stager), stager, pad


def wait_for(condition, timeout_s=30.0):
    ends_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends_s, "timed out"
        time.sleep(0.02)


def test_nothing_is_touched_before_a_checkpoint_exists(tmp_path):
    write_run(tmp_path / "run", make_config(tmp_path / "run"))
    touched = []
    options = PlayOptions(checkpoint=tmp_path / "run", seconds=0.5, console=False)
    report = play(
        options, stop=threading.Event(), make_game=lambda *_: touched.append("game"),
        make_pad=lambda _: touched.append("pad"),
    )  # fmt: skip
    assert report is None
    assert touched == []


def test_a_swap_takes_effect_at_the_next_tick_and_compiles_nothing(run, policy):
    player, stager, pad = make_player(run, policy)
    player.begin(SCENE)
    compiled = policy.num_compilations()
    player.tick()
    stager.newest = Staged(2, policy.place({"params": run.state.params, "stats": run.state.stats}))
    player.tick()
    assert player.step == 2
    assert player.tally.swaps == 2
    assert policy.variables is stager.newest.variables
    assert policy.num_compilations() == compiled == 1
    assert len(pad.updates) == 2


def test_a_swap_can_wait_for_the_next_unstuck(run, policy):
    stuck = UnstuckConfig(window_s=0.3, distance_m=1000.0)  # whatever it does, it is stuck
    player, stager, pad = make_player(run, policy, swap_at="unstuck", unstuck=stuck)
    player.begin(SCENE)
    stager.newest = Staged(2, stager.newest.variables)
    for _ in range(8):
        player.tick()
    assert player.step == 1
    player.tick()
    assert player.tally.unstucks == 1
    assert player.step == 2
    assert not pad.updates[-1].controls.any()


def test_being_stuck_teleports_the_car_and_restarts_the_history(run, policy):
    stuck = UnstuckConfig(window_s=0.3, distance_m=1000.0)
    game = TownGame(run.config.game, height=36, width=64, seed=0)
    player, _, _ = make_player(run, policy, game, unstuck=stuck)
    player.begin(SCENE)
    for _ in range(8):
        player.tick()
    place = game.world.location
    player.tick()
    assert np.hypot(*np.subtract(game.world.location, place)[:2]) > 5.0
    player.tick()
    assert not player._observer.inputs["history"].any()


def test_what_is_told_waits_for_the_frames_that_show_it(run, policy):
    """As it did for the samples that were learned from; here three instants."""
    speeds = []

    class Watched(TownGame):
        def tick(self):
            telemetry = super().tick()
            speeds.append(telemetry.speed_mps)
            return telemetry

    game = Watched(run.config.game, height=36, width=64, seed=0)
    make_player(run, policy, game)
    collect = replace(run.config.collect, latency_offset_ms=100.0)
    policy.config = replace(run.config, collect=collect)
    stager = Stager(policy, run.checkpoint_dir)
    stager.newest = Staged(1, policy.variables)
    player = Player(game, RecordingPad(), policy, stager)
    player.begin(SCENE)
    game.set_npc(True)  # whose car moves
    seen = []
    for _ in range(12):
        player.tick()
        seen.append(float(player._observer.inputs["speed"][0]))
    assert seen[5:] == pytest.approx(speeds[-10:-3])
    assert seen[-1] != pytest.approx(speeds[-1])


def test_a_prediction_that_is_no_number_lets_go_of_the_pad(run, policy):
    player, stager, pad = make_player(run, policy)
    player.begin(SCENE)
    broken = {"params": {}, "stats": run.state.stats}
    broken["params"] = _filled(run.state.params, 3e38)
    stager.newest = Staged(2, policy.place(broken))  # as if every check had missed it
    player.tick()
    player.tick()
    assert player.tally.not_finite == 1
    assert not pad.updates[-1].controls.any()


def _filled(tree, value):
    if isinstance(tree, dict):
        return {name: _filled(leaf, value) for name, leaf in tree.items()}
    return np.full(tree.shape, value, tree.dtype)


class Hiccup(TownGame):
    """A Town whose next instants come too late, or not at all."""

    trouble = ""

    def tick(self):
        telemetry = super().tick()
        if self.trouble == "old":
            return replace(telemetry, captured_ns=telemetry.captured_ns - 10**9)
        if self.trouble == "still":
            return replace(telemetry, captured_ns=telemetry.captured_ns - 10**9, is_still=True)
        if self.trouble == "hidden":
            return replace(telemetry, is_whole=False)
        if self.trouble == "slow":
            time.sleep(2 * LOST_S)
            return replace(telemetry, captured_ns=clock_ns())
        if self.trouble == "gone":
            raise GameError("The game must send an instant every 2 s, got none.")
        return telemetry


def test_a_car_that_stands_before_a_still_picture_is_driven_on(run, policy):
    game = Hiccup(replace(run.config.game, is_realtime=True), height=36, width=64, seed=0)
    player, _, pad = make_player(run, policy, game)
    player.begin(SCENE)
    game.trouble = "still"
    player.tick()
    assert player.tally.lost == 0
    assert pad.updates[-1].controls.any()


class Deaf(TownGame):
    """A Town that tells of a wheel which never moves."""

    def tick(self):
        telemetry = super().tick()
        return replace(telemetry, controls=telemetry.controls * np.float32([1, 0]))


def test_a_game_that_does_not_steer_as_it_is_asked_is_told_of(run, policy, monkeypatch):
    asked = {"acceleration_braking": 0.2, "steering": -0.3}
    monkeypatch.setattr(policy, "predict", lambda *_: asked)
    stepped = replace(run.config.game, is_realtime=False)
    texts = []
    for kind in (TownGame, Deaf):
        game = kind(stepped, height=36, width=64, seed=0)
        player, _, _ = make_player(run, policy, game, CommandPad(game))
        player.keeper.wait = lambda: None
        player.begin(SCENE)
        for _ in range(450):
            player.tick()
        texts.append(player.response.text())
    assert texts[0] == ""
    assert texts[1].startswith("the game applies 0% of steering")
    assert texts[1] in describe(player.report())


def test_a_game_that_is_not_seen_is_nobodys_fault(run, policy):
    """Neither stuck nor judged: the pad was let go of."""
    stuck = UnstuckConfig(window_s=0.3, distance_m=1000.0)
    game = Hiccup(replace(run.config.game, is_realtime=True), height=36, width=64, seed=0)
    player, _, pad = make_player(run, policy, game, unstuck=stuck)
    player.begin(SCENE)
    game.trouble = "hidden"
    for _ in range(30):
        player.tick()
        assert not pad.updates[-1].controls.any()
    assert player.tally.unstucks == 0
    assert player.tally.lost == 30
    assert "let go of" in player.sight_note()


class Mute:
    """A policy whose server answers once."""

    def __init__(self, policy):
        self._policy, self.num_answers = policy, 0

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def predict(self, inputs):
        self.num_answers += 1
        return self._policy.predict(inputs) if self.num_answers < 3 else None


def test_a_standing_car_is_not_driven_by_a_server_that_is_gone(run, policy):
    game = Hiccup(replace(run.config.game, is_realtime=True), height=36, width=64, seed=0)
    player, _, pad = make_player(run, policy, game)
    player.policy = Mute(policy)
    player.begin(SCENE)
    game.trouble = "still"
    player.tick()
    assert pad.updates[-1].controls.any()
    ends_s = time.monotonic() + 2 * LOST_S
    while time.monotonic() < ends_s:
        player.tick()
    assert not pad.updates[-1].controls.any()
    assert player.is_lost


def test_the_pad_is_let_go_of_while_the_game_says_nothing(run, policy):
    game = Hiccup(replace(run.config.game, is_realtime=True), height=36, width=64, seed=0)
    below = RecordingPad()
    with closing(WatchedPad(below)) as pad:
        player, _, _ = make_player(run, policy, game, pad)
        player.begin(SCENE)
        player.tick()
        game.trouble = "slow"
        player.tick()
        assert pad.lapses == 1
    assert player.tally.stalls == 1
    held, let_go, after = list(below.updates)[-4:-1]  # the last is of closing
    assert held.controls.any()
    assert not let_go.controls.any()
    assert let_go.time_ns - held.time_ns < 2 * LOST_S * 1e9
    assert after.controls.any()


class Slow(TownGame):
    """A Town that takes its time for a scene."""

    is_building = False

    def teleport(self, place=None):
        super().teleport(place)
        self.is_building = True

    def tick(self):
        if self.is_building:
            time.sleep(0.4)
            self.is_building = False
        return super().tick()


def test_a_scene_that_is_built_for_a_stuck_car_makes_nobody_late(run, policy):
    stuck = UnstuckConfig(window_s=0.3, distance_m=1000.0, fade_s=0.0)
    game = Slow(replace(run.config.game, is_realtime=True), height=36, width=64, seed=0)
    player, _, _ = make_player(run, policy, game, unstuck=stuck)
    player.begin(SCENE)
    while not player.tally.unstucks:
        player.tick()
    assert not game.is_building  # it was waited for
    missed = player.keeper.missed
    player.tick()
    player.tick()  # which counts what the one before was late
    assert player.keeper.missed - missed < 0.4 * 30 / 2


def test_lost_frames_let_go_of_the_pad(run, policy):
    config = replace(run.config.game, is_realtime=True)
    game = Hiccup(config, height=36, width=64, seed=0)
    player, _, pad = make_player(run, policy, game)
    player.begin(SCENE)
    player.tick()
    game.trouble = "old"
    player.tick()
    assert player.tally.lost == 1
    assert not pad.updates[-1].controls.any()
    game.trouble = ""
    player.tick()
    assert player.tally.lost == 1


def test_a_game_that_goes_away_leaves_the_pad_neutral(run):
    pads = []

    class Going(Hiccup):
        def act(self, controls):
            super().act(controls)
            self.trouble = "gone"

    class Both(RecordingPad):
        def update(self, controls):
            super().update(controls)
            self.game.act(controls)

    def make_pad(game):
        pads.append(Both())
        pads[0].game = game
        return pads[0]

    def make_game(config, seed):
        return Going(config.game, height=36, width=64, seed=seed)

    options = PlayOptions(checkpoint=run.directory, seed=100_000, console=False)
    with pytest.raises(GameError, match="got none"):
        play(options, stop=threading.Event(), make_game=make_game, make_pad=make_pad)
    assert len(pads[0].updates) == 2
    assert pads[0].updates[0].controls.any()
    assert not pads[0].updates[-1].controls.any()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_pad_is_the_one_that_the_options_name(run):
    # python-xlib leaves the sockets of a connection that failed to the garbage collector.
    pad = PadConfig(kind="keyboard", display=":987")  # there is no such display
    options = PlayOptions(checkpoint=run.directory, seed=100_000, console=False, pad=pad)
    with pytest.raises((PadError, ExtraMissingError), match="keyboard pad"):
        play(options, stop=threading.Event())


PLAYER = """
import sys
from pathlib import Path
from charles.options import PlayOptions
from charles.io.pads.command import CommandPad
from charles.io.pads.recording import RecordingPad
from charles.play import play

class Loud(RecordingPad):
    def update(self, controls):
        super().update(controls)
        print("update", flush=True)
    def close(self):
        super().close()
        print("closed", self.updates[-1].controls.tolist(), flush=True)

if __name__ == "__main__":
    options = PlayOptions(checkpoint=Path(sys.argv[1]), console=False)
    play(options, make_pad=lambda game: Loud(game.controls))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there a signal from outside ends at once")
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_player_with_a_neutral_pad(run, tmp_path, number):
    script = tmp_path / "player.py"
    script.write_text(PLAYER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(run.directory)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    deadline = threading.Timer(90.0, process.kill)  # so that a failure ends, too
    deadline.start()
    with process:
        assert process.stdout.readline() == "update\n"
        process.send_signal(number)
        lines = process.stdout.read().splitlines()
        assert process.wait(20.0) == 0
    deadline.cancel()
    assert lines[-1] == "closed [0.0, 0.0]"


def the_player(server):
    """State and details of the one player that the server knows; empty if there is none."""
    return next((dict(peer.detail, state=peer.state) for peer in server.peers()), {})


def test_an_attached_player_swaps_refuses_and_outlives_its_server(run, capsys):
    config = replace(run.config, server=ServerConfig(port=free_port()))
    with ExitStack() as stack:
        server = stack.enter_context(closing(Server(config)))
        server.start()
        pads, reports = stack.enter_context(playing(PlayOptions(server=config.server)))
        wait_for(lambda: the_player(server).get("state") == "driving")

        run.save(2, lambda leaf: leaf * 1.01)
        wait_for(lambda: the_player(server)["step"] == 2)
        run.save(3, lambda leaf: leaf * np.float32("nan"))
        wait_for(lambda: the_player(server)["refused"] == 1)
        assert the_player(server)["step"] == 2
        run.save(4, lambda leaf: leaf * 1.02)
        wait_for(lambda: the_player(server)["step"] == 4)

        server.close()
        before = len(pads[0].updates)
        wait_for(lambda: len(pads[0].updates) > before + 30)
        server = stack.enter_context(closing(Server(config)))
        server.start()
        wait_for(lambda: the_player(server).get("step") == 4)
        assert len(pads) == 1  # it never let go in between
    (report,) = reports
    assert (report.step, report.tally.swaps, report.compilations) == (4, 3, 1)
    assert [refusal.step for refusal in report.refusals] == [3]
    assert "not finite" in report.refusals[0].reason
    assert np.abs([update.controls for update in pads[0].updates]).max() > 0
    assert not pads[0].updates[-1].controls.any()
    assert "1 refused" in capsys.readouterr().out


def test_the_stage_log_keeps_the_newest_ticks():
    log = StageLog(capacity=4)
    for _ in range(10):
        log.begin()
        for _ in range(6):
            log.mark()
        log.end(clock_ns() - 5_000_000)
    assert log.ticks == 10
    assert set(log.stages_ms()) == set(STAGES)
    assert 5.0 <= log.latency_ms().p50 < 500.0


def test_a_report_reads_well(run, policy):
    player, _, _ = make_player(run, policy)
    player.begin(SCENE)
    player.tick()
    text = describe(player.report())
    assert "drove 1 ticks with checkpoint 1" in text
    assert "deadlines missed" in text


def test_a_player_alone_with_nothing_but_a_bad_checkpoint_says_why(tmp_path):
    with closing(TinyRun(tmp_path / "run")) as bad:
        bad.save(1, lambda leaf: np.full_like(leaf, np.nan))
        options = PlayOptions(checkpoint=bad.directory, seconds=30.0, console=False)
        with pytest.raises(CheckpointError, match="not finite"):
            play(options, stop=threading.Event(), make_pad=lambda game: RecordingPad(game.controls))


def real_time_town(run):
    return TownGame(replace(run.config.game, is_realtime=True), height=36, width=64, seed=0)


def test_a_stuck_car_fades_out_jumps_and_fades_in_and_nothing_is_predicted_meanwhile(run, policy):
    stuck = UnstuckConfig(window_s=0.3, distance_m=1000.0, fade_s=0.1)
    game = real_time_town(run)
    player, _, pad = make_player(run, policy, game, unstuck=stuck)
    spectators = player._spectators = Spectators(game, 30.0)
    shown = []
    spectators.subscribe(lambda each: shown.append((each.camera, each.state, each.picture.mean())))
    with closing(game):
        player.begin(SCENE)
        while player.state == "driving":
            player.tick()
        updates, ticks, place = len(pad.updates), player.tally.ticks, game.world.location
        assert not pad.updates[-1].controls.any()
        while player.state == "unstuck":
            player.tick()
        assert (len(pad.updates), player.tally.ticks) == (updates, ticks)
        assert player.tally.passed == 6
        assert np.hypot(*np.subtract(game.world.location, place)[:2]) > 5.0
        player.tick()
        assert len(pad.updates) == updates + 1
    seen = {state: [light for _, at, light in shown if at == state] for _, state, _ in shown}
    assert min(seen["unstuck"], default=0.0) < 0.5 * min(seen["driving"])
    assert len(player.cadence._periods_ns) == player.report().cadence.instants - 2


def follower(zero):
    """Parameters, made of zeros, that steer towards the marker at a steady 5 m/s."""
    zero["purpose"]["kernel"][0, :2] = 2.0, -2.0  # sine of the direction, and its negative
    zero["heads"]["steering"]["kernel"][8:10, 0] = 1.0, -1.0
    zero["speed"]["kernel"][0, 0] = 1.0
    zero["gears"]["acceleration_braking"]["dense"]["bias"][1] = 0.5
    zero["gears"]["acceleration_braking"]["dense"]["kernel"][0, 1] = -1.0
    return zero


def test_a_network_that_steers_into_walls_is_gone_back_from(run, policy):
    """Ten times as fast as the town's time: every duration is a tenth of what it stands for."""
    zeros = [jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), run.state.params)
             for _ in range(2)]  # fmt: skip
    better = policy.place({"params": follower(zeros[0]), "stats": run.state.stats})
    for name in ("steering", "acceleration_braking"):
        zeros[1]["heads"][name]["bias"][:] = 1.0
    worse = policy.place({"params": zeros[1], "stats": run.state.stats})
    town = TownGame(GameConfig(vehicles=0, pedestrians=0), height=36, width=64, seed=0)
    player, stager, _ = make_player(
        run, policy, town, CommandPad(town),
        rate_hz=300.0, longest_hold=0.0, unstuck=UnstuckConfig(window_s=0.4, distance_m=0.2),
        rollback=RollbackConfig(window_minutes=0.05, apart_s=0.5),
    )  # fmt: skip
    stager.newest = Staged(1, better)
    player.begin(SCENE)
    while player.rollback.trusted is None:
        player.tick()
    assert player.rollback.trusted.incidents == 0
    stager.newest = Staged(2, worse)
    for _ in range(3000):
        player.tick()
        if player.rollback.rollbacks:
            break
    assert player.step == 1
    assert policy.variables is better
    assert player.tally.unstucks > 0
    assert "rolled back from checkpoint 2 to 1" in describe(player.report())
    player.tick()
    assert player.step == 1  # although the newest is still staged
    stager.newest = Staged(3, policy.place({"params": zeros[0], "stats": run.state.stats}))
    while player.step == 1:
        player.tick()
    assert player.step == 3
    assert player.rollback.is_on_probation
