"""Keeping in touch with a DeepGTAV game: connecting, connecting again, restarting it.

A connection that is lost is made again; a game that is gone, silent or blind is restarted if the
user has named a command for that, and otherwise an error that says what to do.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from charles.errors import GameError, GameProtocolError
from charles.io.deepgtav_dialect import Dialect
from charles.io.deepgtav_options import DeepGTAVOptions, Tally
from charles.io.deepgtav_pairs import Link, LinkLost, Mailbox, Pair
from charles.io.deepgtav_restart import run_restart_command
from charles.io.pads.watched import PATIENCE_S

MUTE_SHARE = 0.5
"""Share of the longest silence after which a new connection is tried once more."""

BUILD_ADVICE = (
    "The mod reads them at fixed places that are right for GTA V 1.0.1180.2 only. Run that build, "
    "or a mod made for yours, or collect nothing from it: driving needs no such controls."
)


class Session:
    """One game, over all its connections and restarts. Used from one thread.

    Args:
        address: Where the game listens.
        dialect: How to talk to it.
        options: Patience and habits.
    """

    def __init__(
        self, address: tuple[str, int], dialect: Dialect, options: DeepGTAVOptions
    ) -> None:
        self.counted = Tally()
        """What happened, apart from what the present connection has counted itself."""
        self._address, self._dialect, self._options = address, dialect, options
        self._link: Link | None = None
        self._fruitless = 0
        self._silent_s = 0.0
        self._is_heard = False

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None

    @property
    def tally(self) -> Tally:
        """What happened so far."""
        if self._link is None:
            return replace(self.counted)
        pairs = self._link.pairs
        return replace(
            self.counted,
            skipped=self.counted.skipped + pairs.skipped,
            broken=self.counted.broken + pairs.broken,
        )

    @property
    def has_restart_command(self) -> bool:
        """Whether the game can be restarted from here."""
        return bool(self._options.restart_command)

    def open(self) -> None:
        """Connect for the first time; a game that does not answer is started, if that is possible.

        Raises:
            GameError: The game cannot be reached.
        """
        self._silent_s, self._is_heard = 0.0, False
        self._reach("", self._options.connect_s)

    def is_fruitful(self) -> None:
        """There was a usable pair: what failed before is forgiven."""
        self._fruitless = 0

    def send(self, messages: list[bytes]) -> None:
        """Send messages; a lost connection is dealt with by the next :meth:`take`.

        Raises:
            GameError: There is no connection yet, or no longer.
        """
        link = self._open_link()
        try:
            for message in messages:
                link.send(message)
        except LinkLost:
            return  # the reader notices as well, and the game is then told everything anew

    def forget(self, until_ns: int) -> None:
        """Throw away the pairs of the scene before: what came, what comes until then, and those
        after that which the mod still sends of it."""
        self._open_link().pairs.forget(until_ns, self._dialect.num_stale)

    def take(self, on_silence: Callable[[], None]) -> Pair | None:
        """The next pair of the present scene.

        Args:
            on_silence: Called whenever nothing came for :data:`PATIENCE_S`.

        Returns:
            ``None`` if the connection was made again: the game must be told its scene.

        Raises:
            GameError: The game is silent, or gone for good.
            GameProtocolError: It answers, but never with a usable pair.
        """
        while True:
            link, began_s = self._open_link(), time.monotonic()
            try:
                pair = link.pairs.take(PATIENCE_S)
                self._require_readable(link.pairs)
                if pair is None:
                    on_silence()
                    self._silent_s += time.monotonic() - began_s
                    self._require_service()
            except LinkLost as err:
                self._reconnect(str(err))
                return None
            if pair is not None:
                self._silent_s, self._is_heard = 0.0, True
                return pair
            if self._silent_s > self._options.timeout_s:
                self.restart_game(
                    f"no frame for {self._options.timeout_s:g} s",
                    "Look at the game: is it paused or minimised, does it know the vehicle, is "
                    "another client served?",
                )
                return None

    def restart_game(self, why: str, fix: str) -> None:
        """Restart the game and connect to it; it must then be told its scene.

        Args:
            why: What is wrong with it, for the error text.
            fix: What a person can do about it.

        Raises:
            GameError: There is no command for that, it fails, or restarting does not help.
        """
        command = self._options.restart_command
        if not command:
            raise GameError(f"{self._dialect.name}: {why}. {fix}")
        self._fruitless += 1
        if self._fruitless > self._options.retries:
            raise GameError(
                f"{self._dialect.name}: {why}, although it was restarted "
                f"{self._options.retries} times in a row. {fix}"
            )
        self._disconnect()
        run_restart_command(command, timeout_s=self._options.restart_s)
        self._silent_s, self._is_heard = 0.0, False
        self.counted.restarts += 1
        self.counted.builds = 0
        self._connect(why, self._options.restart_s)

    def close(self, messages: list[bytes]) -> None:
        """Send last messages and end the connection. May be called twice; does not raise."""
        if self._link is not None:
            self.send(messages)
            self._disconnect()

    def _require_service(self) -> None:
        """Give up a connection that the game may never have taken up, while there is time for
        another.

        Raises:
            LinkLost: There was nothing on it for too long.
        """
        limit_s = MUTE_SHARE * self._options.timeout_s
        if self._dialect.may_be_ignored and not self._is_heard and self._silent_s > limit_s:
            self._is_heard = True  # once is enough: scenes may take as long as this
            raise LinkLost(f"nothing came for {limit_s:g} s")

    def _open_link(self) -> Link:
        if self._link is None:
            raise GameError("A game must be reset before it is used, and not after it is closed.")
        return self._link

    def _reconnect(self, why: str) -> None:
        self._fruitless += 1
        if self._fruitless > self._options.retries:
            raise GameProtocolError(
                f"{self._dialect.name}: {self._fruitless} connections in a row ended without a "
                f"usable pair; the last one because {why}. Check what listens on game.port "
                f"{self._address[1]}, and that the size of the frames is what it sends."
            )
        self._disconnect()
        # A game that is being restarted may have answered once more before it went.
        is_starting = self.counted.restarts > 0 and not self._is_heard
        patience_s = self._options.restart_s if is_starting else self._options.reconnect_s
        self._reach(why, patience_s)
        self.counted.reconnects += 1

    def _reach(self, why: str, patience_s: float) -> None:
        """Connect; if nothing answers, restart the game."""
        try:
            self._connect(why, patience_s)
        except GameError as err:
            if not self.has_restart_command:
                raise
            self.restart_game(str(err), "")

    def _connect(self, why: str, patience_s: float) -> None:
        """Connect, waiting longer between attempts; bounded.

        Raises:
            GameError: The game cannot be reached for ``patience_s``.
        """
        host, port = self._address
        give_up_s, pause_s = time.monotonic() + patience_s, 0.1
        while self._link is None:
            try:
                self._link = self._dialect.connect(self._address, timeout_s=patience_s + 1.0)
            except OSError as err:
                if time.monotonic() + pause_s > give_up_s:
                    lost = f"lost the game ({why}) and " if why else ""
                    raise GameError(
                        f"{self._dialect.name}: {lost}nothing answers at {host}:{port} for "
                        f"{patience_s:g} s ({err}). Start GTA V with the mod, or charles-town, "
                        "or correct game.host and game.port."
                    ) from err
                time.sleep(pause_s)
                pause_s = min(2.0 * pause_s, 5.0)

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
            self.counted = self.tally
            self._link = None

    def _require_readable(self, pairs: Mailbox) -> None:
        if pairs.broken_in_row >= self._options.refused_limit:
            raise GameProtocolError(
                f"{self._dialect.name}: telemetry must be JSON with finite controls, got "
                f"{pairs.broken_in_row} pairs in a row that are not, the last: "
                f"{pairs.last_broken}. {BUILD_ADVICE}"
            )
