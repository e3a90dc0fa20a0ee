"""Runs of games with a task of their own are scored as runs in Town are; others are refused."""

import contextlib

import pytest
from rich.console import Console
from tests.tiny_run import TinyRun, make_config

from charles.config import GameConfig
from charles.courses import GameCourse, ScoredGame, TownCourse, make_course
from charles.drivers import DriverSpec
from charles.errors import ConfigError
from charles.evaluate import evaluate, make_report, print_report
from charles.gymnasium_config import GymnasiumConfig
from charles.io.games import make_game
from charles.options import EvaluateOptions
from charles.play_config import PlayConfig, UnstuckConfig

pytest.importorskip("gymnasium", reason="needs pip install 'charles[gymnasium]'")
pytest.importorskip("pygame", reason="needs pip install 'charles[gymnasium]'")

CAR_RACING = GameConfig(name="gymnasium", seeds=(0, 1000))
QUICKLY = PlayConfig(unstuck=UnstuckConfig(window_s=2.0))


def spec_of(kind, **where):
    return DriverSpec(name="driving" if where else kind, kind=kind, **where)


@contextlib.contextmanager
def course_of(config):
    with contextlib.closing(make_course(config)) as course:
        yield course


def test_every_scored_game_has_a_course_and_the_town_its_own(tmp_path):
    assert isinstance(make_course(make_config(tmp_path)), TownCourse)
    config = make_config(tmp_path, game=CAR_RACING)
    assert isinstance(make_course(config), GameCourse)
    with contextlib.closing(make_game(CAR_RACING, config.frame, seed=0)) as game:
        assert isinstance(game, ScoredGame)


@pytest.mark.parametrize(
    "game",
    [
        GameConfig(name="window"),
        GameConfig(name="deepgtav"),
        GameConfig(name="gymnasium", gymnasium=GymnasiumConfig(env="Pendulum-v1")),
    ],
    ids=lambda game: game.name,
)
def test_a_game_without_a_task_is_refused_in_one_sentence(tmp_path, game):
    with pytest.raises(ConfigError, match=r"must be of town, CarRacing or metadrive to be scored"):
        make_course(make_config(tmp_path, game=game))


def test_evaluating_a_run_of_a_window_says_that_it_cannot_be_scored(tmp_path):
    run = TinyRun(tmp_path / "run", game=GameConfig(name="window"))
    run.save(1)
    run.close()
    with pytest.raises(ConfigError, match="'window': it has no task"):
        evaluate(EvaluateOptions(checkpoint=run.directory, routes=1, workers=1))


def test_tracks_that_were_trained_on_are_refused(tmp_path):
    course = make_course(make_config(tmp_path, game=CAR_RACING))
    assert [route.seed for route in course.make_routes(3, first_seed=1000)] == [1000, 1001, 1002]
    with pytest.raises(ConfigError, match="give tracks that were never trained on"):
        course.make_routes(3, first_seed=998)


def test_a_run_of_car_racing_is_scored_against_its_teacher_and_a_floor(tmp_path):
    run = TinyRun(tmp_path / "run", game=CAR_RACING, play=QUICKLY)
    run.save(5, lambda leaf: leaf + 0.02)
    run.close()
    specs = {
        "driving": spec_of("policy", checkpoint_dir=run.checkpoint_dir, step=5),
        "npc": spec_of("npc"),
        "straight": spec_of("straight"),
        "untrained": DriverSpec(name="untrained", kind="policy"),
    }
    with course_of(run.config) as course:
        (route,) = course.make_routes(1, first_seed=100_000)
        drives = {name: [course.drive(spec, route)] for name, spec in specs.items()}
        assert course.drive(specs["straight"], route) == drives["straight"][0]
    teacher, straight = drives["npc"][0], drives["straight"][0]
    assert (teacher.ended, teacher.completion, teacher.off_road_s) == ("done", 1.0, 0.0)
    assert teacher.route.length_m == pytest.approx(teacher.distance_m, rel=0.1)
    assert straight.ended == "off_route"
    assert 0.0 < straight.completion < 0.5
    assert straight.off_road_s > 0.0
    assert drives["driving"][0].completion < 0.5
    report = make_report(drives, checkpoint_step=5, config=run.config)
    assert report["npc"]["arrivals"]["mean"] == 1.0
    assert report["straight"]["arrivals"]["mean"] == 0.0
    with open("/dev/null", "w") as nowhere:
        console = Console(width=140, record=True, file=nowhere)
        print_report(report, console)
        assert "1 routes in unseen tracks, checkpoint 5" in console.export_text()
