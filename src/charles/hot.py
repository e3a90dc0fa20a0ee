"""The hot file: settings that a person changes while training runs, by editing JSON.

``<run_dir>/hot.json`` is written at the start with what holds then, for example
``{"learning_rate": 0.001, "loss_weights": {"steering": 1.0}}``, and read again whenever it changes.
What it leaves out stays as it is. A file that cannot be taken as a whole is not taken at all: what
held before goes on, and ``problem`` says why until a good one comes. A resumed run begins with what
its file says, but for what its configuration says anew.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charles.config import TrainConfig
from charles.errors import ConfigError, require
from charles.files import write_whole

FILE_NAME = "hot.json"


@dataclass(frozen=True, kw_only=True)
class HotValues:
    """What can change while training runs."""

    learning_rate: float
    """Peak of the schedule."""
    loss_weights: Mapping[str, float]
    """Weight of each output's loss in the total, by the output's name."""

    @classmethod
    def of(cls, config: TrainConfig) -> "HotValues":
        """The values of a run's configuration."""
        weights = {output.name: output.loss_weight for output in config.outputs}
        return cls(learning_rate=config.optimizer.learning_rate, loss_weights=weights)

    def changed(self, text: str | bytes) -> "HotValues":
        """These values with what a file's text says.

        Raises:
            ConfigError: The text is no JSON object, names something unknown, or a value is not
                finite or below 0.
        """
        try:
            data = json.loads(text)
        except ValueError as err:
            raise ConfigError(f"{FILE_NAME} must be JSON, got: {err}.") from err
        rule = "be an object"
        require(isinstance(data, dict), FILE_NAME, rule, data)
        weights = data.pop("loss_weights", {})
        require(isinstance(weights, dict), f"{FILE_NAME} loss_weights", rule, weights)
        rate = _checked("learning_rate", data.pop("learning_rate", self.learning_rate))
        require(not data, FILE_NAME, "have learning_rate and loss_weights only", [*data])
        for name in weights:
            known = tuple(self.loss_weights)
            require(name in known, f"{FILE_NAME} loss_weights", f"name outputs {known}", name)
        weights = {name: _checked(name, value) for name, value in weights.items()}
        return HotValues(learning_rate=rate, loss_weights={**self.loss_weights, **weights})

    def renewed(self, before: "HotValues", now: "HotValues") -> "HotValues":
        """These values with what differs between two configurations of the same outputs, as in
        the second."""
        is_kept = before.learning_rate == now.learning_rate
        weights = {
            name: self.loss_weights.get(name, weight)
            if before.loss_weights.get(name) == weight
            else weight
            for name, weight in now.loss_weights.items()
        }
        rate = self.learning_rate if is_kept else now.learning_rate
        return HotValues(learning_rate=rate, loss_weights=weights)

    def text(self) -> str:
        """The values as a file's text."""
        data = {"learning_rate": self.learning_rate, "loss_weights": dict(self.loss_weights)}
        return json.dumps(data, indent=2) + "\n"

    def differences(self, other: "HotValues") -> list[str]:
        """What differs from ``other``, as ``learning_rate 0.001 → 0.0005``."""
        pairs = {"learning_rate": (other.learning_rate, self.learning_rate)}
        for name, weight in self.loss_weights.items():
            pairs[f"{name} loss weight"] = (other.loss_weights[name], weight)
        return [f"{name} {old:g} → {new:g}" for name, (old, new) in pairs.items() if old != new]


class HotFile:
    """Watches one run's hot file. Use from one thread; nothing here raises for a bad file.

    Args:
        run_dir: The run's directory; must exist.
        values: What holds until the file says otherwise: those of the configuration.
        before: Those of the configuration that the run had before it is resumed; it then begins
            with what the file says, if there is one. ``None`` for a new run.

    Attributes:
        values: What holds now.
        problem: Why the file as it is was not taken; empty if it was.
    """

    def __init__(
        self, run_dir: Path, values: HotValues, *, before: HotValues | None = None
    ) -> None:
        self.values = values
        self.problem = ""
        self._path = run_dir / FILE_NAME
        self._seen: Any = None
        if before is not None and self._path.exists():
            self.poll()
            self.values = self.values.renewed(before, values)
            if before == values or self.problem:
                return
        self._write()

    def poll(self) -> bool:
        """Read the file if it changed since the last look; costs a few microseconds if not.

        Returns:
            Whether other values hold now.
        """
        try:
            if (found := self._look()) == self._seen:
                return False
            self._seen = found
            values = self.values.changed(self._path.read_bytes())
        except (OSError, ConfigError) as err:
            self.problem = str(err)
            return False
        self.problem = ""
        is_other = values != self.values
        self.values = values
        return is_other

    def _look(self) -> tuple[int, int, int]:
        """What tells one state of the file from another: a clock alone may tick too slowly."""
        about = os.stat(self._path)
        return about.st_mtime_ns, about.st_size, about.st_ino

    def _write(self) -> None:
        try:
            write_whole(self._path, self.values.text())
            self._seen = self._look()
        except OSError as err:
            self.problem = f"{self._path} cannot be written: {err.strerror}."


def _checked(name: str, value: Any) -> float:
    """``value`` as a number that a step can use."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_good = is_number and 0 <= value <= float(np.finfo(np.float32).max)
    require(is_good, f"{FILE_NAME} {name}", "be a finite number of 0 or more", value)
    return float(value)
