"""Running the user's command that restarts a game."""

import shlex
import subprocess
import sys
import tempfile
from typing import IO

from charles.errors import GameError

_MOST_SHOWN = 400
"""Characters of what a failed command said last that its error text has."""


def run_restart_command(command: str, *, timeout_s: float) -> None:
    """Run a command line without a shell, and wait until it ends. The game it starts goes on.

    Args:
        command: Program and arguments, quoted as the system's own command lines are.
        timeout_s: How long it may take; it is stopped then, but not what it has started.

    Raises:
        GameError: It cannot be run, fails, or takes too long.
    """
    # A game that inherits a pipe would keep it open: waiting for its end would be for ever.
    with tempfile.TemporaryFile() as said:
        try:
            process = _start(command, said)
        except OSError as err:
            raise GameError(
                f"restart_command must be a program that runs, got {command!r} ({err}). "
                "Name it with its whole path."
            ) from err
        try:
            status = process.wait(timeout_s)
        except BaseException as err:  # also when the user interrupts
            process.kill()
            process.wait()
            if not isinstance(err, subprocess.TimeoutExpired):
                raise
            raise GameError(
                f"restart_command must end within {timeout_s:g} s, got {command!r}, which did not. "
                "Let it start the game in the background."
            ) from err
        if status != 0:
            raise GameError(
                f"restart_command must succeed, got exit status {status} from {command!r}: "
                f"{_last_words(said)} Run it by hand to see why."
            )


def _start(command: str, said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that Ctrl-C ends us and not the game."""
    flags = subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0
    return subprocess.Popen(
        command if flags else shlex.split(command),  # Windows takes lines apart by itself
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        start_new_session=not flags,
        creationflags=flags,
    )


def _last_words(said: IO[bytes]) -> str:
    said.seek(0)
    text = said.read().decode(errors="replace").strip()
    return f"{text[-_MOST_SHOWN:]}." if text else "it said nothing."
