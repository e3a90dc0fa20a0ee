"""The processes that a trainer starts along: collectors, and a player. They find its server as any
other would.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import cv2

from charles.collect import collect
from charles.config import ServerConfig
from charles.options import CollectOptions, PlayOptions
from charles.process import Worker, lower_priority
from charles.rate_guard import NICENESS


@contextmanager
def companions(
    server: ServerConfig, *, collectors: int, has_player: bool, accept_contract: bool
) -> Iterator[list[Worker]]:
    """Start them, and stop all at the end.

    Args:
        server: Where the trainer listens.
        collectors: How many collectors.
        has_player: Whether a player, too.
        accept_contract: Whether they may go on with another capture contract than the run's.
    """
    collecting = CollectOptions(server=server, console=False, accept_contract=accept_contract)
    playing = PlayOptions(server=server, console=False, accept_contract=accept_contract)
    with ExitStack() as stack:

        def start(name: str, target: Callable[..., None], options: object) -> Worker:
            worker = Worker(name, target, options)
            stack.callback(worker.stop)
            return worker

        workers = [start(f"collector {i + 1}", _collect, collecting) for i in range(collectors)]
        if has_player:
            workers.append(start("player", _play, playing))
        yield workers


def _collect(options: CollectOptions) -> None:
    """Collect, and yield to player and trainer where cores are short."""
    lower_priority(NICENESS + 5)
    cv2.setNumThreads(1)
    collect(options.server, has_console=False, accept_contract=options.accept_contract)


def _play(options: PlayOptions) -> None:
    from charles.play import play

    play(options)
