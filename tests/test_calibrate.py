"""A game whose habits are known is measured, through its pad and its pictures, and found so."""

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from tests.town.serving import serving

from charles.calibrate import calibrate, describe
from charles.config import FrameConfig, GameConfig, TrainConfig
from charles.errors import CalibrationError, ConfigError, PadError
from charles.io.calibration import Calibration, load_calibration, with_calibration
from charles.io.game import Scene
from charles.io.pads.make import make_pad, zones_of
from charles.io.pads.pad import SpeedAware
from charles.io.town import TownGame
from charles.options import CalibrateOptions
from charles.pad_config import DeadZone, PadConfig, ZonesConfig
from charles.town.server import TownServer
from charles.town_config import TownConfig

TRUTH = TownConfig(
    zones=ZonesConfig(
        accelerate=DeadZone(game=0.1, limit=0.9),
        brake=DeadZone(game=0.25, curve=1.5),
        steering=DeadZone(game=0.18),
    ),
    steering_gain=((0.0, 1.0), (6.0, 0.8), (12.0, 0.5)),
)
SMALL = FrameConfig(height=72, width=128)


def options_for(path, town=TRUTH, **changes):
    game = GameConfig(vehicles=0, pedestrians=0, town=town)
    options = CalibrateOptions(game=game, frame=SMALL, out=path / "calibration.json", levels=12)
    return replace(options, **changes)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Options, and what was measured of a town with known habits."""
    options = options_for(tmp_path_factory.mktemp("axes"))
    return options, calibrate(options)


def test_the_axes_of_a_known_game_are_found(measured):
    options, found = measured
    for name, zone in vars(TRUTH.zones).items():
        axis = getattr(found.axes, name)
        assert axis.zone.game == pytest.approx(zone.game, abs=0.004)
        assert axis.zone.limit == pytest.approx(zone.limit, abs=0.004)
        assert axis.zone.curve == pytest.approx(zone.curve, abs=0.02)
        assert axis.does_fit
    gains = dict(found.axes.steering.gains)
    assert gains == pytest.approx(dict(TRUTH.steering_gain), abs=0.01)
    assert load_calibration(options.out) == found
    text = describe(found, options.out)
    assert "steering: dead zone 0.180" in text
    assert f"bin/play --pad.calibration {options.out}" in text


def test_a_calibrated_pad_makes_the_game_apply_what_is_wanted_at_any_speed(measured):
    options, _ = measured
    with closing(TownGame(options.game, height=36, width=64, seed=0)) as game:
        game.reset(Scene(seed=0))
        pad = make_pad(PadConfig(kind="command", calibration=options.out), game)
        assert isinstance(pad, SpeedAware)
        for _ in range(120):
            telemetry = game.tick()
        game.set_npc(False)
        assert telemetry.speed_mps > 3.0
        for wanted in ([0.5, 0.3], [0.9, -0.4], [-0.6, 0.05], [0.0, 0.0]):
            pad.at_speed(telemetry.speed_mps)
            pad.update(np.array(wanted, np.float32))
            telemetry = game.tick()
            assert telemetry.controls == pytest.approx(wanted, abs=0.02)
        pad.update(np.array([1.0, 0.3], np.float32))
        pad.close()
        assert not game.tick().controls.any()


@pytest.mark.parametrize(
    ("town", "instants"),
    [
        (TownConfig(), 0),
        (TownConfig(frame_delay=3), 3),
        (TownConfig(telemetry_delay=2), -2),
    ],
)
def test_a_known_delay_is_found_in_the_pictures(tmp_path, town, instants):
    found = calibrate(options_for(tmp_path, town, mode="latency", repeats=4))
    assert found.latency_offset_ms == pytest.approx(instants * 1000 / 30, abs=16.0)
    assert found.latency.found >= 3
    assert found.latency.low_ms <= found.latency_offset_ms <= found.latency.high_ms
    assert f"--collect.latency-offset-ms {found.latency_offset_ms:.1f}" in describe(found, tmp_path)


def test_what_was_measured_before_stays(tmp_path, measured):
    options, found = measured
    path = tmp_path / "calibration.json"
    path.write_bytes(options.out.read_bytes())
    both = calibrate(replace(options, out=path, mode="latency", repeats=3))
    assert both.axes == found.axes
    assert both.latency is not None
    config = TrainConfig()
    assert with_calibration(config, path).game.name == "town"
    late = replace(config, collect=replace(config.collect, latency_offset_ms=200.0))
    with pytest.raises(CalibrationError, match=r"--collect\.latency-offset-ms"):
        with_calibration(late, path)


def test_the_same_table_reads_a_persons_pad_and_writes_ours(measured):
    options, found = measured
    assert zones_of(PadConfig(kind="virtual", calibration=options.out)) == found.axes.zones
    config = TrainConfig(game=GameConfig(name="window"))
    path = options.out.with_name("window.json")
    path.write_text(options.out.read_text().replace('"town"', '"window"'))
    assert with_calibration(config, path).game.window.human.zones == found.axes.zones
    assert with_calibration(config, None) is config
    with pytest.raises(CalibrationError, match="game 'window', got 'town'"):
        with_calibration(config, options.out)


class Deaf(TownGame):
    """A town whose pad is not plugged in."""

    def show_axes(self, accelerate, brake, steering):
        self.shown = (accelerate, brake, steering)


def test_a_game_that_does_not_answer_or_turn_is_an_error_and_the_pad_is_neutral(tmp_path):
    made = []

    def make(config):
        made.append(Deaf(config, height=72, width=128, seed=0))
        return made[-1]

    with pytest.raises(CalibrationError, match=r"accelerate: the game must apply.*--pad.kind"):
        calibrate(options_for(tmp_path), make)
    with pytest.raises(CalibrationError, match="must reach 6 m/s"):
        calibrate(options_for(tmp_path, mode="latency"), make)
    assert [game.shown for game in made] == [(0.0, 0.0, 0.0)] * 2
    assert not (tmp_path / "calibration.json").exists()


class Blind(TownGame):
    """A town whose picture never changes."""

    def grab(self, out):
        out[:] = np.arange(out.shape[1], dtype=np.uint8)[None, :, None]


def test_pushes_that_no_picture_shows_are_an_error(tmp_path):
    with pytest.raises(CalibrationError, match=r"4 pushes .* 0 were.*--push"):
        calibrate(
            options_for(tmp_path, mode="latency", repeats=4),
            lambda config: Blind(config, height=72, width=128, seed=0),
        )


class Stepwise(TownGame):
    """A town whose steering snaps to quarters, and to the wrong side now and then."""

    def _applied(self, world):
        applied = super()._applied(world)
        if abs(applied[1]) > 0:
            applied[1] = np.sign(applied[1]) * (round(3 * abs(applied[1])) / 3 - 0.1)
        return applied


def test_an_axis_that_does_not_fit_is_kept_but_nobody_may_drive_by_it(tmp_path):
    options = options_for(tmp_path, TownConfig(), speeds_mps=(0.0,))
    with pytest.raises(CalibrationError, match="got steering that do not"):
        calibrate(options, lambda config: Stepwise(config, height=72, width=128, seed=0))
    kept = load_calibration(options.out)
    assert "DOES NOT FIT" in describe(kept, options.out)
    with pytest.raises(CalibrationError, match=r"set pad.zones by hand"):
        zones_of(PadConfig(kind="virtual", calibration=options.out))


def test_a_game_that_tells_no_controls_is_refused_at_once(tmp_path):
    class Silent(TownGame):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.capture = replace(self.capture, tells_controls=False)

    with pytest.raises(CalibrationError, match="must tell which controls it applies"):
        calibrate(options_for(tmp_path), lambda config: Silent(config, height=8, width=8, seed=0))


def test_a_pad_without_axes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"pad.kind must be one of .* got 'keyboard'"):
        calibrate(options_for(tmp_path, pad=PadConfig(kind="keyboard")))
    with pytest.raises(PadError, match="takes no axes as commands"):
        make_pad(PadConfig(calibration=_written(tmp_path)), _NoAxes())


class _NoAxes:
    controls = ("acceleration_braking", "steering")


def _axes(size):
    return {name: {"zone": {"game": size}} for name in vars(TRUTH.zones)}


def _written(path, **changes):
    """A calibration of any game whose axes all are plain."""
    data = {"format": 1, "game": "town", "axes": _axes(0.2)} | changes
    file = path / "other.json"
    file.write_text(json.dumps(data))
    return file


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "format 1, got: format 2"),
        ({"axes": {"brake": 3}}, r"must be a calibration.*axes"),
        ({"axes": None}, "--mode axes"),
        ({"game": "deepgtav"}, "game 'town', got 'deepgtav'"),
        ({"version": "town-0"}, "version 'town-1', got 'town-0'"),
        ({"axes": _axes(3)}, "dead_zone.game"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(tmp_path, changes, text):
    config = PadConfig(calibration=_written(tmp_path, **changes))
    town = TownGame(GameConfig(), height=8, width=8, seed=0)
    with closing(town) as game, pytest.raises(CalibrationError, match=text):
        make_pad(config, game)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "calibration.json"
    with pytest.raises(CalibrationError, match="must be a file of charles-calibrate"):
        load_calibration(path)
    path.write_text("dead zones: about a quarter")
    with pytest.raises(CalibrationError, match="must be a calibration, format 1"):
        load_calibration(path)
    assert Calibration(game="town").axes is None


def test_a_served_game_is_measured_in_real_time(tmp_path):
    habits = TownConfig(zones=ZonesConfig(steering=DeadZone(game=0.2)))
    with serving(habits=habits) as server:
        assert isinstance(server, TownServer)
        game = GameConfig(name="deepgtav", port=server.port)
        options = CalibrateOptions(
            game=game, frame=FrameConfig(height=20, width=32), out=tmp_path / "gta.json",
            levels=6, hold_s=0.3, speeds_mps=(0.0,),
        )  # fmt: skip
        found = calibrate(options)
    assert found.axes.steering.zone.game == pytest.approx(0.2, abs=0.02)
    assert found.axes.accelerate.zone.game == pytest.approx(0.25, abs=0.02)
    assert (found.game, found.version) == ("deepgtav", "DeepGTAV")
