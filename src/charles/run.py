"""What a run writes beside its checkpoints, so that it can be understood, resumed and reproduced.

``<run_dir>/config.json`` has the whole configuration; ``<run_dir>/provenance.json`` has when it was
started last, with which versions, on which git revision.
"""

import json
import platform
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

import charles
from charles.config import TrainConfig
from charles.errors import CharlesError, ConfigError
from charles.files import write_whole
from charles.outputs import OutputConfig

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "panda3d", "pyzmq")
"""Packages whose versions are recorded."""

NOT_CONTRACT = frozenset({"run_dir", "server"})
"""Where a run lives and listens: may differ at any time."""


CONFIG_FILE = "config.json"
"""A run's configuration, in its directory."""


def write_run(run_dir: Path, config: TrainConfig, *, resume: bool = False) -> bool:
    """Record a run that is about to start.

    A directory that already holds a run is taken again if its configuration is the same, or, with
    ``resume``, whatever it was; checkpoints that do not fit are refused where they are read.

    Args:
        run_dir: The run's directory; made if it is missing.
        config: Its configuration.
        resume: Go on with the run that is there, with this configuration from now on.

    Returns:
        Whether the directory held a run before, which is now to be gone on with.

    Raises:
        ConfigError: Another run is there, or the directory cannot be written.
    """
    path = run_dir / CONFIG_FILE
    is_known = path.exists()
    if is_known and not resume:
        _require_same(path, read_run(run_dir), config)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        _write_json(path, as_data(config))
        _write_json(run_dir / "provenance.json", _provenance())
    except OSError as err:
        raise ConfigError(
            f"run_dir must be a directory that can be written, got {str(run_dir)!r}: "
            f"{err.strerror}. Choose another with --run-dir."
        ) from err
    return is_known


def read_run(run_dir: Path) -> TrainConfig:
    """The configuration of a run. Its ``run_dir`` is where it was found, even if it was moved.

    Raises:
        ConfigError: There is none, or it is no configuration of this version of Charles.
    """
    path = run_dir / CONFIG_FILE
    try:
        data = dict(json.loads(path.read_bytes()))
    except FileNotFoundError as err:
        raise ConfigError(
            f"run_dir must hold a run, got {str(run_dir)!r} without a config.json. "
            "Name the directory that was given to charles-train as --run-dir."
        ) from err
    except (OSError, TypeError, ValueError) as err:
        raise ConfigError(f"{path} must be a readable JSON object, got: {err}.") from err
    _rename(data)
    try:
        config = msgspec.convert(data | {"run_dir": str(run_dir)}, TrainConfig, dec_hook=_to_path)
    except (TypeError, ValueError, CharlesError) as err:
        raise ConfigError(f"{path} must be a configuration of this version, got: {err}.") from err
    unknown = sorted(set(_flat(data)) - set(_flat(as_data(config))))
    if unknown:
        raise ConfigError(
            f"{path} must have known fields only, got {', '.join(unknown)}. "
            "Use the version of Charles that wrote it; see provenance.json beside it."
        )
    return config


def _rename(data: dict[str, Any]) -> None:
    """Give what earlier versions wrote its present names, in place."""
    for game in ("window", "gymnasium"):
        try:
            human = data["game"][game]["human"]
            pedal, steering = human.pop("pedal_dead_zone"), human.pop("steering_dead_zone")
        except (KeyError, TypeError, AttributeError):
            continue
        zones = {"accelerate": pedal, "brake": pedal, "steering": steering}
        human["zones"] = {axis: {"game": size} for axis, size in zones.items()}


def as_data(config: Any) -> dict[str, Any]:
    """A configuration as plain data for JSON."""
    return msgspec.to_builtins(config, enc_hook=str)


def contract_of(config: TrainConfig) -> dict[str, Any]:
    """The settings that parameters depend on: a checkpoint fits those that share them all."""
    data = as_data(config)
    return {
        "outputs": [_contract_of_output(output) for output in config.outputs],
        "frame": data["frame"],
        "network": data["network"],
        "history_length": data["data"]["history_length"],
    }


def _contract_of_output(output: OutputConfig) -> dict[str, Any]:
    contract: dict[str, Any] = {"name": output.name, "type": output.type}
    if output.class_values:
        contract["classes"] = list(output.class_values)
    return contract


def contract_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two of :func:`contract_of`, one of which may be of an earlier version:
    what only one has is not compared, and neither is what is frozen."""
    before, after = (_flat(json.loads(json.dumps(each))) for each in (old, new))
    return [
        f"{name}: {before[name]} → {after[name]}"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name] and name != "network.frozen"
    ]


def differences(old: Any, new: Any) -> list[str]:
    """What differs between two configurations, as ``seed: 1 → 2``; places apart."""
    before, after = _flat(as_data(old)), _flat(as_data(new))
    names = [name for name in before | after if name.split(".")[0] not in NOT_CONTRACT]
    return [
        f"{name}: {before.get(name, 'nothing')} → {after.get(name, 'nothing')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _require_same(path: Path, old: TrainConfig, new: TrainConfig) -> None:
    changed = differences(old, new)
    if changed:
        raise ConfigError(
            f"run_dir must be new or hold a run of the same configuration, got {path.parent} with "
            f"another ({'; '.join(changed)}). "
            "Go on with that run by --resume, or start a new one with another --run-dir."
        )


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested data as one level: ``{"data.balancing.patience": 600, "outputs.0.low": -1.0}``."""
    children: Iterator[tuple[Any, Any]]
    if isinstance(data, dict):
        children = iter(data.items())
    elif isinstance(data, list | tuple) and any(isinstance(each, dict) for each in data):
        children = iter(enumerate(data))
    else:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in children:
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _to_path(kind: type, value: Any) -> Any:
    if issubclass(kind, Path):
        return kind(value)
    raise NotImplementedError(kind.__name__)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    write_whole(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _provenance() -> dict[str, Any]:
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "charles": charles.__version__,
        "git": git_revision(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def git_revision() -> str | None:
    """Revision of the checkout that Charles runs from, ``+changes`` if edited; ``None`` if none."""
    git, here = shutil.which("git"), Path(__file__).parent
    if git is None:
        return None
    command = [git, "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*",
               "--dirty=+changes"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
