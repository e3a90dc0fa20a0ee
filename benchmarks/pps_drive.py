"""Drives for benchmarks: Town or another game in real time, until a time or a number of swaps."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from charles.checkpoint import Checkpoints
from charles.config import GameConfig, TrainConfig
from charles.io.game import Game
from charles.io.games import make_game
from charles.io.pads.command import CommandPad
from charles.options import PlayOptions
from charles.play import play
from charles.player import PlayReport
from charles.process import Worker
from charles.run import contract_of

BETWEEN_SWAPS_S = 1.5
"""Between two checkpoints; a trainer writes one every few seconds."""

SEED = 100_000
"""The world that is driven in."""

LAST_SWAP_S = 3.0
"""Given to the last checkpoint to be found and swapped in."""


def write_checkpoints(config: TrainConfig, first_step: int, num: int, wait_s: float) -> None:
    """Write ``num`` checkpoints, each of slightly other parameters, as a trainer would."""
    import jax

    from charles.intake import sample_spec
    from charles.nets.driver import make_network
    from charles.optim import make_optimizer
    from charles.outputs import make_output
    from charles.state import make_state

    outputs = tuple(make_output(output) for output in config.outputs)
    network = make_network(config.network, sample_spec(config), outputs)
    state = make_state(network, make_optimizer(config.optimizer), seed=0)
    with closing(Checkpoints(config.run_dir / "checkpoints")) as checkpoints:
        for step in range(first_step, first_step + num):
            params = jax.tree.map(lambda leaf, by=1 + 1e-3 * step: leaf * by, state.params)
            checkpoints.save(step, replace(state, params=params), {}, contract=contract_of(config))
            checkpoints.wait()
            time.sleep(wait_s)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """When a drive ends."""

    seconds: float = 0.0
    """After so long,"""
    swaps: int = 0
    """or once the writer has written so many checkpoints, and the last one drives."""

    def wait(self, config: TrainConfig, stop: threading.Event) -> None:
        """Return when it is over, or ``stop`` is set."""
        if not self.swaps:
            stop.wait(self.seconds)
            return
        worker = Worker("writer", write_checkpoints, config, 2, self.swaps, BETWEEN_SWAPS_S)
        while worker.is_alive:
            time.sleep(0.1)
        error = worker.error()
        worker.stop()
        if error is not None:
            print(error, file=sys.stderr)
        time.sleep(LAST_SWAP_S)


def drive(
    config: TrainConfig,
    game: GameConfig,
    ending: Ending,
    *,
    options: PlayOptions | None = None,
    on_begin: Callable[[], None] | None = None,
    stop: threading.Event | None = None,
) -> PlayReport:
    """Drive until the ending, which counts from when the pad is made, or until ``stop`` is set.

    With ``options``, which say who predicts; by default JAX, with the run's checkpoints.
    ``on_begin`` is called as the drive begins.
    """
    stop = stop or threading.Event()
    threads: list[threading.Thread] = []

    def end() -> None:
        ending.wait(config, stop)
        stop.set()

    def make_pad(game: Game) -> CommandPad:
        if on_begin is not None:
            on_begin()
        threads.append(threading.Thread(target=end))
        threads[-1].start()
        return CommandPad(game)

    report = play(
        options or PlayOptions(checkpoint=config.run_dir, seed=SEED, console=False),
        stop=stop,
        make_game=lambda config, seed: make_game(game, config.frame, seed=seed),
        make_pad=make_pad,
    )
    for thread in threads:
        thread.join()
    if report is None:
        raise RuntimeError("Nothing was driven.")
    return report
