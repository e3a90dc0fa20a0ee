"""Who is at the wheel of a player: the network, or a person who has taken it.

Touching the pad hands the wheel over in the same tick: the pad is looked at right before the
player's pad is updated. It is handed back once the pad has rested in neutral for a while. A hotkey
hands it over and back whatever the pad does; after it handed it back, the pad must rest before it
counts as touched again. A pad that is unplugged while its person drives counts as let go of:
neutral for as long as a release takes, then the network.

What happens with what the person shows is :mod:`charles.human_samples`'.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np

from charles.config import TrainConfig
from charles.errors import PadError
from charles.io.human.source import HumanInput
from charles.io.pads.pad import driving_indices
from charles.sample import is_held_out
from charles.takeover_config import TakeoverConfig
from charles.timing import NS_PER_S, clock_ns

_REST = 0.02
"""Controls up to this are those of a pad that nobody moves; wheels tremble."""


class TakeoverSwitch(Protocol):
    """A key that hands the wheel over and back. Used from one thread."""

    def is_down(self) -> bool:
        """Whether it is held down now. Does not block for long.

        Raises:
            PadError: The keyboard is gone.
        """
        ...

    def close(self) -> None:
        """Release everything. May be called twice; does not raise."""
        ...


class Turn(NamedTuple):
    """A person's turn at the wheel, at one instant."""

    controls: np.ndarray
    """What the person does, float32 ``[A]``, as the game applies it."""
    may_be_over: bool
    """Whether the pad rests in neutral: the person coasts, or has let go."""
    is_lost: bool = False
    """Whether the pad is gone and these controls are nobody's."""


@dataclass
class TakeoverTally:
    """What was counted of a person's turns."""

    takeovers: int = 0
    ticks: int = 0
    """Instants that the person drove."""


class Takeover:
    """Decides at every tick who drives. Use from one thread, as a context manager.

    Args:
        human: The person's pad, wheel or keys; closed with this.
        switch: The key that hands over and back, if there is one; closed with this.
        release_s: How long a pad that was unplugged keeps the wheel, in neutral.
        passes_through: Whether the player's pad gets the person's controls.

    Attributes:
        note: What a person should know: the pad was unplugged.
    """

    def __init__(
        self,
        human: HumanInput,
        switch: TakeoverSwitch | None = None,
        *,
        release_s: float,
        passes_through: bool = True,
    ) -> None:
        self.tally = TakeoverTally()
        self.note = ""
        self.passes_through = passes_through
        self._human: HumanInput | None = human
        self._switch = switch
        self._release_ns = round(release_s * NS_PER_S)
        self._neutral_until_ns = 0
        self._is_driving = self._is_sticky = self._is_muted = self._was_down = False
        self._indices, self._num = (0, 1), 2

    def __enter__(self) -> "Takeover":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of pad and keyboard."""
        for device in (self._human, self._switch):
            if device is not None:
                device.close()

    @property
    def is_driving(self) -> bool:
        """Whether a person drove at the last tick."""
        return self._is_driving

    def begin(self, controls: Sequence[str]) -> None:
        """Get to know the game that is driven.

        Args:
            controls: Names of its controls.

        Raises:
            PadError: The game is not driven like a car.
        """
        self._indices, self._num = driving_indices(controls), len(controls)

    def step(self) -> Turn | None:
        """Who drives now: the person's turn, or ``None`` for the network. Call once a tick."""
        turn = self._turn()
        self.tally.takeovers += turn is not None and not self._is_driving
        self.tally.ticks += turn is not None
        self._is_driving = turn is not None
        return turn

    def _turn(self) -> Turn | None:
        if self._human is None:
            is_over = clock_ns() >= self._neutral_until_ns
            return None if is_over else Turn(self._neutral(), may_be_over=True, is_lost=True)
        is_toggled = self._is_toggled()
        try:
            reading = self._human.read()
        except PadError as err:
            return self._lose(err)
        if is_toggled:
            self._is_sticky = not self._is_driving
            self._is_muted = self._is_driving
        self._is_muted = self._is_muted and reading.is_active
        if not self._is_sticky and (self._is_muted or not reading.is_active):
            return None
        controls = self._neutral()
        controls[list(self._indices)] = reading.controls
        is_resting = bool((np.abs(controls) <= _REST).all())
        return Turn(controls, may_be_over=is_resting and not self._is_sticky)

    def _is_toggled(self) -> bool:
        """Whether the hotkey went down since the last tick; a keyboard that is gone never does."""
        if self._switch is None:
            return False
        try:
            is_down = self._switch.is_down()
        except PadError as err:
            self._say(f"no hotkey any more: {err}")
            self._switch.close()
            self._switch = None
            return False
        was_down, self._was_down = self._was_down, is_down
        return is_down and not was_down

    def _lose(self, err: PadError) -> Turn | None:
        """The pad is gone: let go as a person would, then leave the wheel to the network."""
        self._say(f"nobody can take the wheel any more: {err}")
        if self._human is not None:
            self._human.close()
        self._human, self._is_sticky = None, False
        if not self._is_driving:
            return None
        self._neutral_until_ns = clock_ns() + self._release_ns
        return Turn(self._neutral(), may_be_over=True, is_lost=True)

    def _neutral(self) -> np.ndarray:
        return np.zeros(self._num, np.float32)

    def _say(self, note: str) -> None:
        self.note = note
        print(f"note: {note}", file=sys.stderr, flush=True)


class _Hotkey:
    """One watched key as a :class:`TakeoverSwitch`."""

    def __init__(self, config: TakeoverConfig) -> None:
        from charles.io.human.held_keys import make_held_keys

        self._keys = make_held_keys([config.hotkey], config.display)

    def is_down(self) -> bool:
        """See :class:`TakeoverSwitch`."""
        return bool(self._keys.held())

    def close(self) -> None:
        """See :class:`TakeoverSwitch`."""
        self._keys.close()


HumanMaker = Callable[[TakeoverConfig], HumanInput]
"""Opens what the person drives with."""


def make_human(config: TakeoverConfig) -> HumanInput:
    """Open what the person drives with.

    Raises:
        ExtraMissingError: What reads it is not installed.
        PadError: It is not there.
        ConfigError: An axis is named that does not exist.
    """
    human = replace(config.human, idle_s=config.release_s)
    if config.kind == "keys":
        from charles.io.human.held_keys import make_held_keys
        from charles.io.human.keyboard import KeyboardInput

        held = make_held_keys(vars(config.keys).values(), config.display)
        return KeyboardInput(held, config.keys, human)
    from charles.io.human.make import make_human as make_pad

    assert config.kind != "none"
    made = make_pad(replace(human, kind=config.kind))
    assert made is not None
    return made


def make_takeover(config: TakeoverConfig, make: HumanMaker = make_human) -> Takeover | None:
    """What decides who drives; ``None`` where nobody may take the wheel.

    Call it before the player's pad is made, which would be found as a person's otherwise.

    Raises:
        CharlesError: The pad, the wheel or the keyboard cannot be read; the text says why.
    """
    if config.kind == "none":
        return None
    human = make(config)
    try:
        switch = _Hotkey(config) if config.hotkey else None
    except BaseException:
        human.close()
        raise
    return Takeover(human, switch, release_s=config.release_s, passes_through=config.passes_through)


def world_to_learn_in(seed: int, config: TrainConfig) -> int:
    """The world that ``seed`` stands for where a person may be learned from.

    One of those that the run is trained in, so that neither held-out worlds nor those of the
    evaluation are learned from.
    """
    low, high = config.game.seeds
    order = (low + (seed - low + step) % (high - low) for step in range(high - low))
    share = config.data.validation_share
    return next((world for world in order if not is_held_out(world, share)), low)
