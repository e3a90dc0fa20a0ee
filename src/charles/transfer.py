"""Parameters to begin with: parts of an earlier checkpoint, or a backbone's weights from a file.

``PART=SOURCE`` says which part of the network takes its values from where: a run's directory
(``backbone=runs/a``, at a step ``backbone=runs/a@27500``) or a weight file of the user's
(``backbone=xception.h5``). A part is a name in the network's parameters, ``backbone`` or
``heads.steering``, or ``all``. Everything is read and compared before anything is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charles.checkpoint import Checkpoints, flatten, unflatten
from charles.errors import CheckpointError, ConfigError, list_rows, require
from charles.models import ModelSpec
from charles.nets.backbones import backbone_of
from charles.nets.functional import Variables
from charles.nets.pretrained import SUFFIXES, Arrays, load_backbone, save_backbone

ALL = "all"
"""The part that is the whole network."""

_COLLECTIONS = ("params", "stats")
"""What variables consist of; a part may have some of both."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one part of the parameters comes from."""

    part: str
    path: Path
    step: int | None = None
    """Which checkpoint of a run; the newest by default."""

    @classmethod
    def parse(cls, text: str) -> "Source":
        """From ``PART=SOURCE`` or ``PART=SOURCE@STEP``.

        Raises:
            ConfigError: It is of another form.
        """
        part, equals, where = text.partition("=")
        path, at, step = where.rpartition("@")
        if not at:
            path, step = where, ""
        form = "be PART=RUN, PART=RUN@STEP or PART=FILE"
        is_form = bool(part and equals and path) and (not at or step.isdecimal())
        require(is_form, "transfer", form, text, "For example backbone=runs/first@27500.")
        return cls(part=part, path=Path(path), step=int(step) if step else None)


def transfer(variables: Variables, sources: Sequence[str], spec: ModelSpec | None) -> Variables:
    """Variables with some parts replaced.

    Args:
        variables: The network's, as arrays or :class:`jax.ShapeDtypeStruct`; not changed.
        sources: ``PART=SOURCE`` each; later ones win.
        spec: The documented model, whose backbone's names in weight files are known; ``None`` for
            the compact driver.

    Returns:
        A tree of the same structure; NumPy arrays where something was replaced.

    Raises:
        ConfigError: A part or a source does not exist.
        CheckpointError: Names or shapes differ; the text has a table of them.
    """
    arrays = flatten(variables)
    found: dict[str, np.ndarray] = {}
    for text in sources:
        source = Source.parse(text)
        wanted = _names_of(source.part, arrays)
        found |= _compare(text, {name: arrays[name] for name in wanted}, _read(source, spec))
    return unflatten(variables, arrays | found)


def check_frozen(
    frozen: Sequence[str], sources: Sequence[str], spec: ModelSpec | None = None
) -> None:
    """Refuse a part that is not trained and begins at random: it stays random for ever.

    Raises:
        ConfigError: There is one; the text says what it began as in the documented model.
    """
    for part in frozen:
        documented = _documented(part, spec)
        hint = f"Name its source, --transfer {part}=RUN or =FILE{documented}, or train it."
        rule = "name parts that begin as trained ones"
        require(_has_source(part, sources), "network.frozen", rule, part, hint)


def missing_origins(sources: Sequence[str], spec: ModelSpec | None) -> list[str]:
    """What a documented model began with and these sources leave out, a sentence each."""
    return [
        f"{origin.part} begins at random{_documented(origin.part, spec)}"
        for origin in (spec.transfer if spec is not None else ())
        if not _has_source(origin.part, sources)
    ]


def _has_source(part: str, sources: Sequence[str]) -> bool:
    """Whether a part, or the whole network, comes from somewhere."""
    return not {part, ALL}.isdisjoint(Source.parse(text).part for text in sources)


def _documented(part: str, spec: ModelSpec | None) -> str:
    """What a part began as in the documented model, in brackets."""
    origins = {origin.part: origin for origin in spec.transfer} if spec is not None else {}
    if part not in origins:
        return ""
    origin = origins[part]
    step = "" if origin.step is None else f" at step {origin.step}"
    return f" (the documented one began as that of {origin.source}{step})"


def export_backbone(
    path: Path,
    checkpoints: Path,
    spec: ModelSpec | None,
    *,
    part: str = "backbone",
    step: int | None = None,
) -> None:
    """Write a trained backbone as safetensors, with the names that timm gives its tensors.

    Args:
        path: The file; replaced if it is there.
        checkpoints: The run's directory of checkpoints.
        spec: The documented model that the run trains.
        part: ``backbone``, or ``backbone.OUTPUT`` of a model with one for each output.
        step: Which checkpoint; the newest by default.

    Raises:
        ConfigError: The network has no backbone that others know, or no such part.
        CheckpointError: There is no such checkpoint, or it is damaged.
        ExtraMissingError: safetensors is not installed.
    """
    names = backbone_of(spec).torch_names()
    arrays = Checkpoints(checkpoints).restore_arrays(step)
    prefixes = [f"{collection}.{part}." for collection in _COLLECTIONS]
    ours = {
        name.removeprefix(prefix).replace(".", "/"): np.asarray(value)
        for name, value in arrays.items()
        for prefix in prefixes
        if name.startswith(prefix)
    }
    missing = sorted(set(names) - set(ours))
    require(not missing, "part", "be a whole backbone", part, "Name backbone or backbone.OUTPUT.")
    save_backbone(path, ours, names)


def _names_of(part: str, arrays: Mapping[str, Any]) -> list[str]:
    """Names of a part's variables.

    Raises:
        ConfigError: There is no such part.
    """
    if part == ALL:
        return list(arrays)
    prefixes = tuple(f"{collection}.{part}." for collection in _COLLECTIONS)
    names = [name for name in arrays if name.startswith(prefixes)]
    if not names:
        parts = sorted({name.split(".")[1] for name in arrays})
        raise ConfigError(f"transfer: a part must be {ALL} or of {', '.join(parts)}, got {part!r}.")
    return names


def _read(source: Source, spec: ModelSpec | None) -> Arrays:
    """Everything that a source has, by our names."""
    if source.path.suffix in SUFFIXES:
        require(source.path.is_file(), "transfer", "name a weight file that is there",
                str(source.path))  # fmt: skip
        backbone = backbone_of(spec)
        keras_names = backbone.keras_names()
        is_known = bool(keras_names) or source.path.suffix == ".safetensors"
        require(is_known, "transfer", "name a .safetensors file: Keras does not have this backbone",
                str(source.path))  # fmt: skip
        values = load_backbone(source.path, keras_names, backbone.torch_names())
        return {_place(path, source.part): value for path, value in values.items()}
    directory = source.path / "checkpoints"
    require(directory.is_dir(), "transfer", f"name a run's directory or a file of {SUFFIXES}",
            str(source.path))  # fmt: skip
    return Checkpoints(directory).restore_arrays(source.step)


def _place(path: str, part: str) -> str:
    """Our name of a backbone's variable: statistics are those of norms."""
    name = path.replace("/", ".")
    is_statistic = name.rpartition(".")[2] in ("mean", "variance")
    return f"{_COLLECTIONS[is_statistic]}.{part}.{name}"


def _compare(text: str, wanted: Mapping[str, Any], found: Mapping[str, np.ndarray]) -> Arrays:
    """What is wanted, out of what was found.

    Raises:
        CheckpointError: Something is missing or of another shape.
    """
    rows = [
        f"  {name}: expected {list(like.shape)}, "
        f"got {list(found[name].shape) if name in found else 'nothing'}"
        for name, like in wanted.items()
        if name not in found or found[name].shape != like.shape
    ]
    if rows:
        raise CheckpointError(
            f"transfer {text} must fit this network, {len(rows)} of {len(wanted)} arrays do not:\n"
            f"{list_rows(rows)}\nNothing was changed. Name a source of the same architecture."
        )
    return {name: np.asarray(found[name], like.dtype) for name, like in wanted.items()}
