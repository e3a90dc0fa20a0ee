"""Outputs of every type drive: what is predicted arrives at the wheels, instant by instant."""

from contextlib import closing
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.tiny_run import NETWORK, make_config

from charles.config import TrainConfig
from charles.drivers import PolicyDriver
from charles.errors import ConfigError
from charles.io.game import Scene
from charles.io.pads.command import CommandPad
from charles.io.town import TownGame
from charles.outputs import ACCELERATION_BRAKING, STEERING, OutputConfig, make_output
from charles.play_config import PlayConfig
from charles.player import Player
from charles.policy import Policy
from charles.staging import Staged, Stager
from charles.town.render import Renderer
from charles.town.world import World, WorldConfig
from charles.train_step import measure

DELTA = OutputConfig(name="steering", type="discrete_delta", is_blind=True)
CLASSES = OutputConfig(name="steering", type="classification", num_classes=5)
PEDAL_DELTA = OutputConfig(name="acceleration_braking", type="discrete_delta", is_blind=True)
HALVES = tuple(
    OutputConfig(name=name, low=0.0, type="discrete_delta", is_blind=True)
    for name in ("acceleration", "braking")
)


def make_policy(tmp_path, outputs, **network):
    """A policy whose parameters are all zero: it believes every class equally probable."""
    config = make_config(
        tmp_path, outputs=outputs, batch_size=6 * len(outputs),
        network=replace(NETWORK, compact=replace(NETWORK.compact, with_speed=False, **network)),
        play=PlayConfig(smoothing=0.9),
    )  # fmt: skip
    return Policy(config)


def believing(policy, **numbers):
    """Parameters with which an output is sure of the class of this number, whatever it sees."""
    variables = jax.tree.map(np.array, jax.device_get(policy.variables))
    for name, number in numbers.items():
        variables["params"]["heads"][name]["bias"][number] = 100.0
    return policy.place(variables)


def drive(policy, variables, num):
    """Controls that applied at ``num`` instants of a world, float32 ``[num, 2]``."""
    with closing(Renderer(36, 64)) as renderer:
        driver = PolicyDriver(policy, variables, renderer)
        world = World(WorldConfig(seed=100_000, vehicles=0, pedestrians=0))
        driver.start()
        applied = []
        for _ in range(num):
            world.step(driver.drive(world))
            applied.append(world.controls)
    return np.array(applied)


def test_the_changes_of_a_delta_add_up_and_smoothing_takes_nothing_from_them(tmp_path):
    policy = make_policy(tmp_path, (ACCELERATION_BRAKING, DELTA))
    up = drive(policy, believing(policy, steering=5), 30)[:, 1]
    # +0.1 to what applied at the instant before the last: both of two instants rise together.
    wanted = np.minimum(0.1 * (1 + np.arange(30) // 2), 1.0)
    np.testing.assert_allclose(up, wanted, atol=1e-5)
    still = drive(policy, believing(policy, steering=3), 10)[:, 1]
    np.testing.assert_allclose(still, 0.0, atol=1e-6)


def test_halves_that_are_deltas_add_up_each_on_its_own_and_stay_in_range(tmp_path):
    policy = make_policy(tmp_path, (*HALVES, STEERING))
    pedal = drive(policy, believing(policy, acceleration=6, braking=0), 12)[:, 0]
    np.testing.assert_allclose(pedal[:8], [0.3, 0.3, 0.6, 0.6, 0.9, 0.9, 1.0, 1.0], atol=1e-5)
    brake = drive(policy, believing(policy, acceleration=0, braking=6), 6)[:, 0]
    np.testing.assert_allclose(brake, [-0.3, -0.3, -0.6, -0.6, -0.9, -0.9], atol=1e-5)


def test_classes_drive_with_their_values_smoothed_as_any(tmp_path):
    policy = make_policy(tmp_path, (PEDAL_DELTA, CLASSES))
    variables = believing(policy, steering=4, acceleration_braking=4)
    controls = drive(policy, variables, 5)
    np.testing.assert_allclose(controls[:, 1], 1.0, atol=1e-5)
    np.testing.assert_allclose(controls[:, 0], [0.03, 0.03, 0.06, 0.06, 0.09], atol=1e-5)
    even = drive(policy, policy.variables, 3)  # every class alike: their mean
    np.testing.assert_allclose(even, 0.0, atol=1e-6)


def test_a_player_adds_changes_up_as_the_evaluation_does(tmp_path):
    policy = make_policy(tmp_path, (ACCELERATION_BRAKING, DELTA))
    variables = believing(policy, steering=5)
    policy.variables = variables
    policy.warm_up()
    stager = Stager(policy, tmp_path / "checkpoints")  # not started: the test says what is newest
    stager.newest = Staged(1, variables)
    with (
        closing(TownGame(policy.config.game, height=36, width=64, seed=0)) as game,
        closing(CommandPad(game)) as pad,
    ):
        player = Player(game, pad, policy, stager)
        player.begin(Scene(seed=100_000, weather="clear", time_of_day_h=12.0))
        steered = []
        for _ in range(8):
            player.tick()
            steered.append(float(player.controls[1]))
    np.testing.assert_allclose(steered, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4], atol=1e-5)


def test_a_delta_that_its_network_is_blind_for_is_refused_by_the_whole_configuration():
    seeing = replace(DELTA, is_blind=False)
    with pytest.raises(ConfigError, match=r"^outputs\.steering\.type must not be discrete_delta"):
        TrainConfig(outputs=(ACCELERATION_BRAKING, seeing))


@pytest.mark.parametrize("name", ["play.rate_hz", "collect.dagger.rate_hz"])
def test_a_change_holds_for_as_long_as_it_was_learned_for(name):
    config = TrainConfig(outputs=(ACCELERATION_BRAKING, DELTA))
    play, collect = config.play, config.collect
    if name.startswith("play"):
        play = replace(play, rate_hz=15.0)
    else:
        collect = replace(collect, dagger=replace(collect.dagger, share=0.5))
    with pytest.raises(ConfigError, match=f"^{name} must be collect.rate_hz"):
        replace(config, play=play, collect=collect)


def train_follower(output, *, sees_current):
    """A small network that learns to follow a wheel; what it decides, as a function of both."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, 512).astype(np.float32)
    label = np.sin(phase)
    history = np.zeros((512, 2, 5), np.float32)
    history[:, -1, 1] = np.clip(np.sin(phase - 0.15) + rng.normal(0, 0.15, 512), -1, 1)
    batch = {"label": np.stack([0 * label, label], -1), "history": history}

    def predict(params, wanted, current):
        x = jnp.stack([wanted, current * sees_current], -1)
        return jnp.tanh(x @ params["in"] + params["bias"]) @ params["out"]

    def loss_of(params):
        raw = {"steering": predict(params, label, history[:, -1, 1])}
        return measure(raw, batch, (output,), ("acceleration_braking", "steering"))["loss"]

    params = {
        "in": rng.normal(0, 3, (2, 32)).astype(np.float32),
        "bias": rng.normal(0, 1, 32).astype(np.float32),
        "out": np.zeros((32, output.num_units), np.float32),
    }
    optimizer = optax.adam(0.02)

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss_of)(params), state)
        return optax.apply_updates(params, updates), state

    params, _ = jax.jit(lambda *carry: jax.lax.fori_loop(0, 700, step, carry))(
        params, optimizer.init(params)
    )
    return jax.jit(lambda wanted, current: output.decode(predict(params, wanted, current), current))


@pytest.mark.parametrize(
    "config",
    [STEERING, OutputConfig(name="steering", type="classification"),
     *(OutputConfig(name="steering", type="discrete_delta", targets=targets)
       for targets in ("hard", "soft"))],
    ids=["regression", "classification", "hard delta", "soft delta"],
)  # fmt: skip
def test_what_was_learned_follows_in_the_closed_loop_and_a_blind_delta_does_not(config):
    """The network sees what the wheel should be; a delta must also see what it is."""
    output = make_output(config)
    errors = {}
    for sees_current in (True, False)[: 1 + config.is_by_change]:
        decide = train_follower(output, sees_current=sees_current)
        steering, misses = [0.0, 0.0], []
        for instant in range(200):
            wanted = np.float32(np.sin(0.075 * instant))
            steering.append(float(decide(wanted[None], np.float32(steering[-2])[None])[0]))
            misses.append(abs(steering[-1] - wanted))
        errors[sees_current] = np.mean(misses)
    assert errors[True] < (0.05 if config.targets == "hard" else 0.02)
    if config.is_by_change:
        assert errors[False] > 0.5
