"""What a run records, and which directories it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import charles
from charles import presets
from charles.errors import ConfigError
from charles.run import contract_of, differences, git_revision, read_run, write_run


@pytest.fixture
def config(tmp_path):
    return replace(presets.tiny(), run_dir=tmp_path / "runs" / "one")


def edit(config, change):
    """Change the config that is on disk."""
    path = config.run_dir / "config.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_what_was_written_is_read_back(config):
    assert write_run(config.run_dir, config) is False
    assert read_run(config.run_dir) == config


def test_provenance_names_versions_date_and_revision(config):
    write_run(config.run_dir, config)
    provenance = json.loads((config.run_dir / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["charles"] == charles.__version__
    assert provenance["packages"]["numpy"]
    assert provenance["started"].startswith("20")
    assert provenance["git"] == git_revision()


def test_the_same_run_is_gone_on_with(config):
    write_run(config.run_dir, config)
    assert write_run(config.run_dir, config) is True


def test_another_run_in_the_same_place_is_refused_with_what_differs(config):
    write_run(config.run_dir, config)
    other = replace(config, seed=7, data=replace(config.data, replay_ratio=3.0))
    with pytest.raises(ConfigError) as caught:
        write_run(config.run_dir, other)
    text = str(caught.value)
    for part in (
        "seed: 0 → 7",
        "data.replay_ratio: 0.0 → 3.0",
        "--resume",
        "--run-dir",
        str(config.run_dir),
    ):
        assert part in text
    assert read_run(config.run_dir) == config


def test_resuming_takes_the_new_configuration(config):
    write_run(config.run_dir, config)
    other = replace(config, steps=99)
    assert write_run(config.run_dir, other, resume=True) is True
    assert read_run(config.run_dir) == other


def test_a_run_may_move_and_listen_elsewhere(config, tmp_path):
    write_run(config.run_dir, config)
    moved = config.run_dir.rename(tmp_path / "moved")
    assert read_run(moved) == replace(config, run_dir=moved)
    other = replace(config, run_dir=moved, server=replace(config.server, port=7777))
    assert write_run(moved, other) is True


def test_unknown_fields_are_refused_by_name(config):
    write_run(config.run_dir, config)
    edit(config, lambda data: data["data"]["balancing"].update(flavour="v9"))
    edit(config, lambda data: data["outputs"][1].update(colour="red"))
    with pytest.raises(ConfigError, match=r"data\.balancing\.flavour, outputs\.1\.colour"):
        read_run(config.run_dir)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data["data"].update(replay_ratio="often"), "data.replay_ratio"),
        (lambda data: data["data"].update(replay_ratio=-1), "data.replay_ratio must be 0 or more"),
        (lambda data: data["game"].update(name="chess"), "chess"),
    ],
)
def test_impossible_values_on_disk_are_refused_by_name(config, change, reason):
    write_run(config.run_dir, config)
    edit(config, change)
    with pytest.raises(ConfigError) as caught:
        read_run(config.run_dir)
    assert reason in str(caught.value)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "7", "\x00\x01"])
def test_a_damaged_config_is_refused_with_its_path(config, text):
    write_run(config.run_dir, config)
    (config.run_dir / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json must be"):
        read_run(config.run_dir)


def test_a_directory_without_a_run_is_refused_with_the_fix(tmp_path):
    with pytest.raises(ConfigError, match=r"without a config\.json.*--run-dir"):
        read_run(tmp_path)


def test_a_directory_that_cannot_be_made_is_refused(config, tmp_path):
    (tmp_path / "runs").write_text("a file", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run_dir must be a directory.*--run-dir"):
        write_run(config.run_dir, config)


def test_contract_is_what_parameters_depend_on(config):
    assert contract_of(config) == contract_of(replace(config, steps=5, run_dir=Path("x"), seed=3))
    compact = replace(config.network.compact, dense=(32,))
    wider = replace(config, network=replace(config.network, compact=compact))
    fewer = replace(config, outputs=config.outputs[:1])
    smaller = replace(config, frame=replace(config.frame, height=18))
    contracts = [json.dumps(contract_of(each)) for each in (config, wider, fewer, smaller)]
    assert len(set(contracts)) == 4


def test_differences_name_fields_that_only_one_side_has(config):
    shorter = replace(config, outputs=config.outputs[:1])
    assert any(
        each == "outputs.1.name: steering → nothing" for each in differences(config, shorter)
    )


def test_parameters_fit_the_meaning_of_their_classes_however_it_was_declared(config):
    pedal, steering = config.outputs

    def contract(**changes):
        return contract_of(replace(config, outputs=(pedal, replace(steering, **changes))))

    assert contract(bin_width=0.5)["outputs"] == [
        {"name": "acceleration_braking", "type": "regression"},
        {"name": "steering", "type": "regression"},
    ]
    classes = contract(type="classification", num_classes=3)
    assert classes == contract(type="classification", classes=(-1.0, 0.0, 1.0), targets="soft")
    assert classes != contract(type="classification", classes=(-1.0, 0.5, 1.0))
    assert classes != contract()
