"""Evaluation drives unseen towns, the same way twice, and says what it found."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from tests.tiny_run import TinyRun, make_config

from charles.config import GameConfig
from charles.errors import CheckpointError, ConfigError
from charles.evaluate import (
    DriverSpec,
    evaluate,
    find_run,
    make_report,
    newest_step,
    print_report,
    run_routes,
)
from charles.options import EvaluateOptions
from charles.play_config import PlayConfig, UnstuckConfig
from charles.routes import Drive, Npc, Route, RouteResult, Straight, drive_route, make_routes

GAME = GameConfig(vehicles=2, pedestrians=2)
SHORT = Route(index=0, seed=100_000, weather="clear", time_of_day_h=12.0, length_m=60.0)


def make_result(driver, index, completion, *, collisions=0, ended="done"):
    weather = ("clear", "rain")[index % 2]
    route = Route(index=index, seed=index, weather=weather, time_of_day_h=8.0, length_m=300.0)
    return RouteResult(
        driver=driver, route=route, ended=ended, completion=completion,
        distance_m=300.0 * completion, time_s=40.0, off_road_s=1.5,
        collisions={"vehicle": collisions} if collisions else {},
    )  # fmt: skip


def test_routes_go_through_every_combination_and_are_balanced_all_along():
    routes = make_routes(32, first_seed=100_000, game=GAME)
    pairs = [(route.weather, route.time_of_day_h) for route in routes]
    assert len(set(pairs[:16])) == 16
    assert pairs[:16] == pairs[16:]
    for start in range(0, 16, 4):
        assert len({weather for weather, _ in pairs[start : start + 4]}) == 4
        assert len({hour for _, hour in pairs[start : start + 4]}) == 4
    assert [route.seed for route in routes] == list(range(100_000, 100_032))
    assert all(300 <= route.length_m <= 400 for route in routes)


def test_routes_keep_to_the_weathers_and_hours_that_were_trained_on():
    game = GameConfig(weathers=("rain",), hours=(10.0, 12.0))
    routes = make_routes(3, first_seed=100_000, game=game)
    assert {(route.weather, route.time_of_day_h) for route in routes} == {("rain", 11.0)}


@pytest.mark.parametrize("first_seed", [0, 500, 999])
def test_a_town_that_was_trained_on_is_refused(first_seed):
    with pytest.raises(ConfigError, match="never trained on"):
        make_routes(5, first_seed=first_seed, game=GameConfig(seeds=(0, 1000)))


def test_a_route_that_only_reaches_into_the_trained_towns_is_refused_too():
    make_routes(5, first_seed=0, game=GameConfig(seeds=(5, 10)))
    with pytest.raises(ConfigError, match="never trained on"):
        make_routes(6, first_seed=0, game=GameConfig(seeds=(5, 10)))


def test_the_npc_completes_a_route_and_the_same_way_twice():
    first, second = (
        drive_route("npc", Npc(), SHORT, game=GAME, unstuck=UnstuckConfig()) for _ in range(2)
    )
    assert first.ended == "done"
    assert first.completion == 1.0
    assert first.collisions == {}
    assert first == second


def test_straight_ahead_leaves_the_route():
    route = Route(index=0, seed=100_000, weather="clear", time_of_day_h=12.0, length_m=312.6)
    result = drive_route("straight", Straight(), route, game=GAME, unstuck=UnstuckConfig())
    assert result.ended in ("off_route", "stuck")
    assert 0.0 < result.completion < 0.5


class Parked:
    def start(self):
        pass

    def drive(self, world):
        return np.array([-1.0, 0.0], np.float32)


@pytest.mark.parametrize(
    ("window_s", "ended", "time_s"), [(8.0, "stuck", 8.0), (99.0, "time", 30.0)]
)
def test_a_parked_car_is_stuck_or_runs_out_of_time(window_s, ended, time_s):
    unstuck = UnstuckConfig(window_s=window_s)
    drive = Drive("parked", Parked(), SHORT, game=GAME, unstuck=unstuck)
    while not drive.ended:
        drive.step()
    result = drive.result()
    assert result.ended == ended
    assert result.time_s == pytest.approx(time_s, abs=0.1)
    assert result.completion < 0.2


def test_a_report_has_the_documented_figures_and_survives_json():
    drives = {
        "driving": [make_result("driving", i, 0.9, collisions=i % 2) for i in range(6)],
        "npc": [make_result("npc", i, 1.0) for i in range(6)],
        "straight": [make_result("straight", i, 0.1, ended="off_route") for i in range(6)],
        "untrained": [make_result("untrained", i, 0.01, ended="stuck") for i in range(6)],
    }
    report = make_report(drives, checkpoint_step=250, config=make_config("runs/x"))
    report = json.loads(json.dumps(report, allow_nan=False))
    assert report["driving"]["route_completion"]["mean"] == pytest.approx(0.9)
    assert len(report["driving"]["route_completion"]["interval"]) == 2
    assert report["ratio_to_npc"]["route_completion"]["mean"] == pytest.approx(0.9)
    assert report["driving"]["collisions_per_km"]["mean"] == pytest.approx(3 / 1.62)
    assert report["driving"]["collisions_per_km_by_cause"]["vehicle"]["mean"] > 0
    none = [0.0, pytest.approx(math.log(40) / 1.8)]  # none in 1.8 km is not none ever
    assert report["npc"]["collisions_per_km"] == {"mean": 0.0, "interval": none}
    assert report["driving"]["distance_between_unstucks_m"]["mean"] is None  # it never was stuck
    assert report["untrained"]["distance_between_unstucks_m"]["mean"] == pytest.approx(3.0)
    assert set(report["by_weather"]) == {"clear", "rain"}
    assert set(report["by_time_of_day"]) == {"08:00"}
    assert len(report["routes"]) == 24
    assert report["checkpoint_step"] == 250
    assert "run_dir" not in report["config"]


def test_the_table_names_every_driver():
    drives = {
        name: [make_result(name, i, 0.5) for i in range(3)]
        for name in ("driving", "npc", "straight", "untrained")
    }
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_report(make_report(drives, checkpoint_step=7, config=make_config("runs/x")), console)
    console.file.close()
    text = console.export_text()
    assert all(name in text for name in drives)
    assert "50% (50%–50%)" in text
    assert "checkpoint 7" in text


# Unoptimised products are summed in the order in which threads come.
@pytest.mark.usefixtures("optimised")
def test_evaluation_runs_end_to_end_and_a_drive_is_the_same_in_any_process(tmp_path):
    run = TinyRun(tmp_path / "run", play=PlayConfig(unstuck=UnstuckConfig(window_s=2.0)))
    run.save(5, lambda leaf: leaf + 0.02)
    run.close()
    options = EvaluateOptions(
        checkpoint=run.checkpoint_dir, routes=1, workers=1, json=tmp_path / "r.json"
    )
    returned = evaluate(options)
    report = json.loads(options.json.read_text())
    assert report == json.loads(json.dumps(returned))
    assert report["checkpoint_step"] == 5
    assert report["npc"]["route_completion"]["mean"] > 0.9
    assert report["straight"]["route_completion"]["mean"] < 0.6
    names = [row["driver"] for row in report["routes"]]
    assert names == ["driving", "npc", "straight", "untrained"]
    spec = DriverSpec(name="driving", kind="policy", checkpoint_dir=run.checkpoint_dir, step=5)
    (route,) = make_routes(1, first_seed=options.first_seed, game=run.config.game)
    # In another worker: how many threads this process sums with is up to the host.
    for drive in run_routes([spec], [route, route], run.config, workers=1)["driving"]:
        assert drive.as_json() == report["routes"][0]


@pytest.mark.slow
def test_a_worker_raises_here_what_went_wrong_there(tmp_path):
    spec = DriverSpec(name="driving", kind="policy", checkpoint_dir=tmp_path / "nothing", step=3)
    with pytest.raises(CheckpointError, match="nothing"):
        run_routes([spec], [SHORT], make_config(tmp_path), workers=1)


def test_a_run_without_checkpoints_is_one_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="must hold a checkpoint, got none"):
        newest_step(tmp_path)


def test_a_run_is_found_from_its_checkpoints(tmp_path):
    assert find_run(tmp_path / "checkpoints") == find_run(tmp_path)


def test_the_npc_needs_no_jax():
    code = "import sys, charles.routes, charles.evaluate; sys.exit('jax' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
