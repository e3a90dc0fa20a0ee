"""The network takes turns at the wheel with the expert, with its newest parameters."""

from contextlib import contextmanager

import numpy as np
import pytest
from tests.test_policy import make_telemetry
from tests.tiny_run import TinyRun

from charles.collect_config import CollectConfig, DaggerConfig
from charles.dagger import Pupil
from charles.observer import Observer
from charles.policy import Policy
from charles.staging import Stager


@pytest.fixture
def run(tmp_path):
    dagger = DaggerConfig(share=0.5, turn_s=(1.0, 1.0), rate_hz=10.0)
    made = TinyRun(tmp_path / "run", collect=CollectConfig(dagger=dagger))
    yield made
    made.close()


@contextmanager
def make_pupil(run):
    policy = Policy(run.config)
    policy.warm_up()
    with Stager(policy, run.checkpoint_dir) as stager:
        yield Pupil(policy, stager, rng=np.random.default_rng(3))


def wait_for(run, pupil, step):
    run.save(step)
    for _ in range(200):
        newest = pupil._stager.newest
        if newest is not None and newest.step == step:
            return
        pupil._stager._stop.wait(0.05)
    pytest.fail(f"checkpoint {step} was not staged within 10 s")


def test_the_expert_drives_until_there_is_a_checkpoint(run):
    with make_pupil(run) as pupil:
        assert not any(pupil.step() for _ in range(200))
        wait_for(run, pupil, 1)
        assert pupil.step()


def test_turns_have_their_share_and_the_controls_hold_between_predictions(run):
    with make_pupil(run) as pupil:
        wait_for(run, pupil, 1)
        observer = Observer(pupil._policy.spec)
        telemetry = make_telemetry(np.random.default_rng(0))
        driven, acted = [], 0
        for _ in range(600):
            driven.append(pupil.step())
            if pupil.is_due:
                assert np.isfinite(pupil.act(observer, telemetry)).all()
                acted += 1
        assert 0.45 < np.mean(driven) < 0.55
        assert 0.3 < acted / sum(driven) < 0.37
        assert np.abs(np.diff(driven)).sum() > 15


def test_new_parameters_drive_from_the_next_turn_on(run):
    with make_pupil(run) as pupil:
        wait_for(run, pupil, 1)
        while not pupil.step():
            pass
        first = pupil._policy.variables
        wait_for(run, pupil, 2)
        while pupil.step():
            assert pupil._policy.variables is first
        while not pupil.step():
            pass
        assert pupil._policy.variables is not first


def test_after_a_new_scene_the_expert_begins(run):
    with make_pupil(run) as pupil:
        wait_for(run, pupil, 1)
        while not pupil.step():
            pass
        pupil.reset()
        assert not pupil.step()
