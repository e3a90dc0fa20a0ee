"""The commands as a user runs them: help, overrides, and one line for every error."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from charles import cli, parsing, presets
from charles.errors import ConfigError, WorkerError
from charles.parsing import parse_train
from charles.run import write_run

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("train", "collect", "play", "serve", "town", "evaluate", "export", "calibrate")


def run(name, *arguments, timeout_s=60):
    """Run a script of ``bin/`` as a user does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, ROOT / "bin" / name, *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=timeout_s, check=False,
    )  # fmt: skip


def only_line(done):
    """The one line of an error that the user can mend."""
    assert done.returncode == cli.USER_ERROR, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_what_a_command_does_and_what_its_options_mean(name):
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"usage: charles-{name}" in done.stdout
    assert "--debug" in done.stdout


def test_help_of_train_shows_presets_and_the_values_of_the_chosen_one(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_train(["--preset", "tiny", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in presets.PRESETS)
    assert "--data.buffer-capacity INT" in text
    assert "(default: 64)" in text
    assert "--config" not in text


def test_arguments_change_the_preset_wherever_they_stand():
    options = parse_train(
        ["--seed", "3", "--preset=tiny", "--data.buffer-capacity", "5000", "--player",
         "--collectors", "2", "--game.weathers", "rain", "fog"]
    )  # fmt: skip
    tiny = presets.tiny()
    assert options.config == replace(
        tiny,
        seed=3,
        data=replace(tiny.data, buffer_capacity=5000),
        game=replace(tiny.game, weathers=("rain", "fog")),
    )
    assert (options.collectors, options.player, options.resume) == (2, True, False)


def test_no_argument_means_the_default_preset():
    assert parse_train([]).config == presets.default()


def test_resuming_starts_from_the_runs_own_settings(tmp_path):
    config = replace(presets.tiny(), run_dir=tmp_path / "run", seed=11)
    write_run(config.run_dir, config)
    options = parse_train(["--resume", "--run-dir", str(config.run_dir), "--steps", "77"])
    assert options.config == replace(config, steps=77)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--preset", "tin"], "Did you mean 'tiny'?"),
        (["--resume", "--preset", "tiny"], "--preset must be left out with --resume"),
        (["--resume", "--run-dir", "nowhere"], "run_dir must hold a run, got 'nowhere'"),
        (["--collectors", "-1"], "collectors must be 0 or more, got -1"),
        (["--collectors", "99"], "collectors must be at most data.max_collectors (8), got 99"),
        (["--collect.rate-hz", "-30"], "collect.rate_hz must be positive, got -30.0"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, text):
    with pytest.raises(ConfigError) as caught:
        parse_train(arguments)
    assert text in str(caught.value)


def test_a_misspelt_option_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_train(["--data.buffer-capacty", "5"])
    assert caught.value.code == cli.USER_ERROR
    assert "--data.buffer-capacity" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("collect", ["--server.host", "0.0.0.0"], "server.host must be an address of this host"),
        ("town", ["--time-of-day-h", "25"], "time_of_day_h must lie in 0..24, got 25.0"),
        ("serve", ["--checkpoint", "nowhere"], "run_dir must hold a run, got 'nowhere'"),
    ],
)
def test_a_bad_value_is_answered_with_one_line(name, arguments, text):
    line = only_line(run(name, *arguments))
    assert line.startswith(f"charles-{name}: ")
    assert text in line


def test_a_checkpoint_that_is_not_there_is_answered_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["charles-evaluate", "--checkpoint", "nowhere"])
    with pytest.raises(SystemExit) as caught:
        cli.evaluate()
    assert caught.value.code == cli.USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("charles-evaluate: run_dir must hold a run, got 'nowhere'")


def test_a_busy_port_is_answered_with_one_line(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = only_line(
            run("train", "--preset", "tiny", "--run-dir", tmp_path / "run", "--server.port", port)
        )
    assert str(port) in line
    assert f"process {os.getpid()}" in line


def test_debug_shows_where_an_error_came_from():
    done = run("train", "--preset", "tin", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "Did you mean 'tiny'?" in done.stderr


def test_a_workers_traceback_becomes_one_line():
    text = (
        "collector 1 failed: Traceback (most recent call last):\n"
        '  File "x.py", line 3, in collect\n'
        "charles.errors.GameError: the game is gone\n"
    )
    line = cli.error_text(WorkerError(text))
    assert line == (
        "collector 1 failed: charles.errors.GameError: the game is gone (--debug shows more)"
    )


def test_ctrl_c_ends_a_command_without_a_traceback():
    def interrupted(_arguments):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        cli.run_command("charles-play", interrupted)
    assert caught.value.code == cli.INTERRUPTED


def test_a_python_without_charles_is_told_how_to_set_up():
    done = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "bin" / "train"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install -e ." in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_scripts_are_short_and_executable(name):
    path = ROOT / "bin" / name
    assert os.access(path, os.X_OK)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60


def test_values_are_found_however_they_are_written():
    arguments = ["--run_dir", "a", "--seed=4", "--run-dir=b"]
    assert parsing.value_of(arguments, "--run-dir") == "b"
    assert parsing.value_of(arguments, "--seed") == "4"
    assert parsing.value_of(arguments, "--steps") is None


def test_a_game_is_named_in_one_word():
    assert parse_train(["--game", "gymnasium:Pendulum-v1"]).config.game.gymnasium.env == (
        "Pendulum-v1"
    )
    assert parse_train(["--preset", "tiny", "--game=gymnasium"]).config.game.name == "gymnasium"
    assert parse_train(["--game", "town", "--seed", "3"]).config.game.name == "town"
    with pytest.raises(ConfigError, match="only as in gymnasium:CarRacing-v3"):
        parse_train(["--game", "town:Paris"])
