"""Who captures otherwise than the run did is told which field differs before anything drives."""

import json
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from tests.ports import free_port
from tests.tiny_run import TinyRun, make_config

from charles import presets
from charles.collect import collect
from charles.config import GameConfig, ServerConfig, TrainConfig
from charles.connection import Connection
from charles.contract import (
    FILE,
    as_data,
    contract_of_capture,
    differences,
    from_data,
    read_contract,
    require_same,
    resumed_contract,
    write_contract,
)
from charles.errors import ConfigError, ContractError
from charles.human_config import HumanConfig
from charles.io.capture import CaptureInfo, capture_of
from charles.io.town import TownGame
from charles.options import PlayOptions
from charles.pad_config import DeadZone, PadConfig, ZonesConfig
from charles.play import play
from charles.run import read_run, write_run
from charles.server import Server
from charles.trainer import train

TOWN = CaptureInfo(
    name="town", version="town-1", build="GTA5.exe 1a", camera="hood", resizer="rendered"
)
WHEEL = ZonesConfig(
    accelerate=DeadZone(game=0.0), brake=DeadZone(game=0.0), steering=DeadZone(game=0.0)
)


def contract(info=TOWN, pad=None, **changes):
    return replace(contract_of_capture(TrainConfig(), info, pad=pad), **changes)


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"camera": "chase"}, "camera: hood → chase"),
        ({"height": 540}, "height: 270 → 540"),
        ({"pixel_format": "rgb"}, "pixel_format: yuv420 → rgb"),
        ({"resizer": "area-2"}, "resizer: rendered → area-2"),
        ({"version": "town-2"}, "version: town-1 → town-2"),
        ({"build": "GTA5.exe 2b"}, "build: GTA5.exe 1a → GTA5.exe 2b"),
        ({"crop_top": 0.1}, "crop_top: 0.3 → 0.1"),
        ({"region": (0, 0, 9, 9)}, "region: all → [0, 0, 9, 9]"),
        ({"rate_hz": 15.0}, "rate_hz: 30.0 → 15.0"),
        ({"latency_offset_ms": 66.7}, "latency_offset_ms: 0.0 → 66.7"),
        ({"game": "window"}, "game: town → window"),
    ],
)
def test_a_difference_is_named_with_both_values_and_the_way_on(changes, row):
    other = contract(**changes)
    assert differences(contract(), other) == [row]
    assert other.fingerprint != contract().fingerprint
    with pytest.raises(ContractError) as caught:
        require_same(contract(), other, who="this player")
    assert f"this player must capture as the run did (contract {contract().fingerprint})" in str(
        caught.value
    )
    assert row in str(caught.value)
    assert "--accept-contract" in str(caught.value)


def test_what_is_accepted_is_told_and_not_refused(capsys):
    require_same(contract(), contract(camera="chase"), who="this player", is_accepted=True)
    assert "camera: hood → chase" in capsys.readouterr().err
    require_same(contract(), contract(), who="this player", is_accepted=True)
    assert capsys.readouterr().err == ""


def test_what_one_side_does_not_tell_is_not_compared():
    silent = contract(CaptureInfo())
    assert differences(contract(), silent) == differences(silent, contract()) == []
    assert capture_of(object()) == CaptureInfo()


def test_what_may_differ_between_a_collector_and_a_player_is_no_part_of_it():
    config = TrainConfig()
    game = replace(config.game, is_realtime=True, host="10.0.0.1", port=1234)
    elsewhere = replace(config, game=game, run_dir=config.run_dir / "moved")
    assert contract_of_capture(elsewhere, TOWN) == contract_of_capture(config, TOWN)


def test_a_players_pad_is_held_to_how_a_persons_was_read_but_not_to_a_wheel():
    read = contract(CaptureInfo(read=ZonesConfig()))
    pad = ZonesConfig(steering=DeadZone(game=0.1))
    player = contract(CaptureInfo(), pad=pad)
    assert differences(read, player) == ["pad_write.steering.game: 0.25 → 0.1"]
    assert differences(read, contract(CaptureInfo(), pad=ZonesConfig())) == []
    smooth = ZonesConfig(steering=DeadZone(neutral=0.1, hysteresis=0.05))
    assert differences(read, contract(CaptureInfo(), pad=smooth)) == []
    assert differences(contract(CaptureInfo(read=WHEEL)), player) == []
    told = contract(CaptureInfo(write=ZonesConfig()))
    assert differences(told, player) == ["pad_write.steering.game: 0.25 → 0.1"]


def test_a_zone_that_was_measured_is_the_same_within_what_is_measured():
    """Else no player could ever use a calibration of its own game."""
    told = contract(CaptureInfo(write=ZonesConfig()))
    near = contract(CaptureInfo(), pad=ZonesConfig(steering=DeadZone(game=0.2487)))
    far = contract(CaptureInfo(), pad=ZonesConfig(steering=DeadZone(game=0.27)))
    assert differences(told, near) == []
    assert differences(told, far) == ["pad_write.steering.game: 0.25 → 0.27"]


def test_a_contract_comes_back_from_a_file_and_from_a_checkpoint(tmp_path):
    made = contract(CaptureInfo(read=ZonesConfig(), region=(1, 2, 3, 4)))
    assert read_contract(tmp_path) is None
    write_contract(tmp_path, made)
    assert read_contract(tmp_path) == made
    assert json.loads((tmp_path / FILE).read_text())["fingerprint"] == made.fingerprint
    assert from_data(json.loads(json.dumps(as_data(made))), "here") == made
    assert as_data(None) is from_data(None, "here") is None
    (tmp_path / FILE).write_text('{"game": 3}')
    with pytest.raises(ConfigError, match=r"contract.json must be a capture contract"):
        read_contract(tmp_path)


# The server and its collectors


@pytest.fixture
def server(tmp_path):
    config = replace(presets.tiny(), run_dir=tmp_path, server=ServerConfig(port=free_port()))
    with closing(Server(config)) as made:
        made.kept = []
        made.keep_contract = made.kept.append
        made.start()
        yield made, config.server


def test_the_first_collectors_contract_is_the_runs_and_others_are_held_to_it(server):
    one, where = server
    first, chase = contract(), contract(camera="chase")
    with closing(Connection(where, "collector")) as a, closing(Connection(where, "collector")) as b:
        assert a.wait_welcome(5.0)
        assert a.agree(first, is_accepted=False) == first
        assert one.contract == first
        assert one.kept == [first]
        assert b.wait_welcome(5.0)
        with pytest.raises(ContractError, match=r"collector 2 must.*camera: hood → chase"):
            b.agree(chase, is_accepted=False)
        assert [peer.id for peer in one.peers()] == [1]
        assert b.wait_welcome(5.0)
        assert b.agree(chase, is_accepted=True) == first
        assert one.kept == [first]
        assert len(one.peers()) == 2


def test_a_collector_that_is_refused_ends_with_the_reason_and_has_sent_nothing(server):
    one, where = server
    one.contract = contract(height=72)

    class Chase(TownGame):
        def tick(self):
            raise AssertionError("it began to collect")

    def make(config, seed):
        return Chase(config.game, height=36, width=64, seed=seed)

    from charles.data.exchange import Exchange
    from charles.data.pool import PoolSpec
    from charles.data.shm import unique_name
    from charles.intake import sample_spec

    spec = PoolSpec(name=unique_name("pool"), num_slots=99, sample=sample_spec(presets.tiny()))
    with closing(Exchange(spec, max_collectors=1, slots_per_collector=64)) as exchange:
        one.open_lane, one.close_lane = exchange.open_lane, exchange.close_lane
        with pytest.raises(ContractError, match=r"height: 72 → \d+"):
            collect(where, make, stop=threading.Event(), has_console=False)


# Runs that are resumed


def test_a_run_is_resumed_only_as_it_was_captured(tmp_path, capsys):
    config = make_config(tmp_path)
    write_run(tmp_path, config)
    kept = contract_of_capture(config, TOWN)
    write_contract(tmp_path, kept)
    assert resumed_contract(config, is_accepted=False) == kept
    other = replace(config, collect=replace(config.collect, latency_offset_ms=50.0))
    with pytest.raises(ContractError, match=r"latency_offset_ms: 0.0 → 50.0"):
        train(other, resume=True, console=False, stop=threading.Event())
    assert read_run(tmp_path) == config  # refused before anything was written
    assert resumed_contract(config, is_accepted=True) == kept
    assert resumed_contract(other, is_accepted=True) is None
    assert "latency_offset_ms" in capsys.readouterr().err


def test_dead_zones_and_region_of_a_window_hold_over_a_resume(tmp_path):
    human = HumanConfig(kind="evdev")
    game = GameConfig(name="window", window=replace(GameConfig().window, human=human))
    config = make_config(tmp_path, game=game)
    write_contract(tmp_path, contract_of_capture(config, CaptureInfo(read=human.zones)))
    assert resumed_contract(config, is_accepted=False)
    wheel = replace(game, window=replace(game.window, human=replace(human, zones=WHEEL)))
    with pytest.raises(ContractError, match=r"pad_read.brake.game: 0.25 → 0.0"):
        resumed_contract(replace(config, game=wheel), is_accepted=False)


def test_a_run_of_before_is_read_with_its_dead_zones(tmp_path):
    config = make_config(tmp_path)
    write_run(tmp_path, config)
    path = tmp_path / "config.json"
    data = json.loads(path.read_text())
    human = data["game"]["window"]["human"]
    del human["zones"], data["game"]["town"], data["collect"]["latency_offset_ms"]
    human |= {"pedal_dead_zone": 0.1, "steering_dead_zone": 0.0}
    path.write_text(json.dumps(data))
    zones = read_run(tmp_path).game.window.human.zones
    assert (zones.accelerate.game, zones.brake.game, zones.steering.game) == (0.1, 0.1, 0.0)


# Players


@pytest.fixture
def run(tmp_path):
    with closing(TinyRun(tmp_path / "run")) as made:
        made.save(1)
        yield made


def drive(run, **options):
    """A short drive with what a run's directory holds, in Town with another camera."""

    class Chase(TownGame):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.capture = replace(self.capture, camera="chase")

    return play(
        PlayOptions(checkpoint=run.directory, seconds=100.0, console=False, **options),
        stop=_after_a_moment(),
        make_game=lambda config, seed: Chase(config.game, height=36, width=64, seed=seed),
        make_pad=run.pads.append if hasattr(run, "pads") else None,
    )


def _after_a_moment():
    """Set a while after the first look, so that driving begins and ends."""

    class Stop(threading.Event):
        looks = 0

        def is_set(self):
            Stop.looks += 1
            return Stop.looks > 100

    return Stop()


def test_a_player_in_another_camera_is_refused_before_the_pad_is_made(run, capsys):
    write_contract(run.directory, contract_of_capture(run.config, TOWN))
    run.pads = []
    with pytest.raises(ContractError, match=r"this player must .*camera: hood → chase"):
        drive(run)
    assert run.pads == []
    del run.pads
    drive(run, accept_contract=True)
    assert "warning: this player must capture as the run did" in capsys.readouterr().err


def test_a_run_without_a_contract_is_driven_with_a_note(run, capsys):
    report = drive(run)
    assert report is not None
    assert "note: this run has no capture contract" in capsys.readouterr().err


def test_a_pad_of_other_dead_zones_is_refused(run):
    info = CaptureInfo(read=ZonesConfig())
    write_contract(run.directory, contract_of_capture(run.config, info))
    pad = PadConfig(kind="virtual", zones=ZonesConfig(brake=DeadZone(game=0.1)))
    with pytest.raises(ContractError, match=r"pad_write.brake.game: 0.25 → 0.1"):
        drive(run, pad=pad)
