"""From a command line to options. Apart from :mod:`charles.cli`, because tyro is slow to import.

``--preset`` is looked at first: it decides the defaults that the help shows and that all other
arguments change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from charles import presets
from charles.config import TrainConfig
from charles.errors import require
from charles.run import read_run

Options = TypeVar("Options")

DEBUG_TEXT = "With --debug, an error shows where in the code it came from."

TRAIN_TEXT = (
    "Train a driver live: be the server that collectors and players join, and learn from what "
    "they collect while they drive. Ctrl-C saves a checkpoint and stops; --resume goes on."
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What ``charles-train`` is told."""

    preset: str = "default"
    """Settings to start from: default, town_small, town_live, car_racing_live, metadrive_live,
    tiny, or a documented model, for example model_0004_inceptionresnetv2_v3. Shown here are its
    values."""
    collectors: int = 0
    """Collectors to start along. More may join at any time: charles-collect."""
    player: bool = False
    """Start a player along. One may join at any time: charles-play."""
    resume: bool = False
    """Go on with the run in --run-dir, with its own settings and what is said here."""
    accept_contract: bool = False
    """Go on, with a warning, where --resume captures, or is set, otherwise than was learned."""
    console: bool = True
    """Show buffers, losses, rates and who is connected."""
    report: bool = False
    """At the end, score the driver closed-loop and write plots and a film into the run."""
    report_routes: int = 20
    """Routes of that score."""
    report_film_s: float = 15.0
    """Length of that film."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        require(self.collectors >= 0, "collectors", "be 0 or more", self.collectors)
        most = self.config.data.max_collectors
        require(self.collectors <= most, "collectors", f"be at most data.max_collectors ({most})",
                self.collectors, "Raise --data.max-collectors.")  # fmt: skip
        require(self.report_routes > 0, "report_routes", "be positive", self.report_routes)
        require(self.report_film_s > 0, "report_film_s", "be positive", self.report_film_s)


def parse(
    kind: type[Options],
    arguments: Sequence[str],
    *,
    program: str,
    text: str,
    default: Options | None = None,
) -> Options:
    """Options of one command from its arguments.

    Args:
        kind: A dataclass; its fields' docstrings are the help.
        arguments: Without the program's name.
        program: Its name.
        text: First text of the help.
        default: What holds where no argument says otherwise.

    Raises:
        ConfigError: A value breaks a rule.
        SystemExit: Help was asked for, or an argument is unknown or malformed.
    """
    text = f"{text} {DEBUG_TEXT}"
    if default is None:
        return tyro.cli(kind, prog=program, args=list(arguments), description=text)
    return tyro.cli(kind, prog=program, args=list(arguments), description=text, default=default)


def parse_train(arguments: Sequence[str]) -> TrainOptions:
    """Options of ``charles-train``: a preset or, with ``--resume``, the run's own configuration,
    and whatever the arguments change of it.

    Raises:
        ConfigError: There is no such preset, no run to resume, or a value breaks a rule.
        SystemExit: Help was asked for, or an argument is unknown or malformed.
    """
    arguments = expand_game(arguments)
    preset = value_of(arguments, "--preset")
    if "--resume" in arguments:
        require(preset is None, "--preset", "be left out with --resume", preset,
                "The run's own settings are taken.")  # fmt: skip
        base = read_run(Path(value_of(arguments, "--run-dir") or TrainConfig.run_dir))
    else:
        base = presets.get(preset or "default")
    default = TrainOptions(preset=preset or "default", config=base)
    return parse(TrainOptions, arguments, program="charles-train", text=TRAIN_TEXT, default=default)


def expand_game(arguments: Sequence[str]) -> list[str]:
    """``--game NAME`` and ``--game gymnasium:ENV`` as the fields that they stand for.

    Example:
        >>> expand_game(["--game", "gymnasium:CarRacing-v3", "--seed", "3"])
        ['--game.name', 'gymnasium', '--game.gymnasium.env', 'CarRacing-v3', '--seed', '3']
        >>> expand_game(["--game=town"])
        ['--game.name', 'town']

    Raises:
        ConfigError: Another game than ``gymnasium`` is given an environment.
    """
    expanded: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag != "--game":
            expanded.append(argument)
            continue
        name, colon, env = (value if equals else next(rest, "")).partition(":")
        rule = "name an environment only as in gymnasium:CarRacing-v3"
        require(not colon or name == "gymnasium", "--game", rule, f"{name}:{env}")
        expanded += ["--game.name", name]
        expanded += ["--game.gymnasium.env", env] if colon else []
    return expanded


def value_of(arguments: Sequence[str], name: str) -> str | None:
    """The value of an argument, written ``--name value`` or ``--name=value``; the last one counts.

    Example:
        >>> value_of(["--preset=tiny", "--seed", "3"], "--seed")
        '3'
    """
    value = None
    for number, argument in enumerate(arguments):
        flag, equals, after = argument.partition("=")
        if flag.replace("_", "-") == name:
            value = after if equals else "".join(arguments[number + 1 : number + 2])
    return value
