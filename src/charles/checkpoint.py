"""Checkpoints on disk: one directory per step, written in the background, read by anyone.

``<directory>/<step>/`` appears by a rename once everything in it is written, so whoever lists the
directory sees complete checkpoints only. It holds three trees of arrays (the ``variables`` to drive
with, the rest of the ``training`` state, the ``data`` state) and, as metadata, the contract: what
the parameters fit, and every array's type and shape. Trees are stored flat, by name; a checkpoint
of another network is thereby refused before anything of it is loaded.

One process writes; any number read meanwhile. One more checkpoint is kept than asked for, and a
reader whose checkpoint is removed under its hands takes the newest instead.
"""

import io
import json
import logging
import re
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from charles.errors import CheckpointError, list_rows, require
from charles.nets.functional import Variables
from charles.state import TrainState

Tree = Any
FlatArrays = dict[str, Any]
Shapes = dict[str, list[Any]]

FORMAT = 1
"""Version of the layout; raised when an older reader could not read it."""

_METADATA_FILE = "_CHECKPOINT_METADATA"
_TEMPORARY_MARK = ".orbax-checkpoint-tmp"
_REMOVED_MARK = ".removed"
_OVERHEAD_BYTES = 256 << 10
"""Room for a checkpoint's files beside the arrays themselves, generously."""
_REMEDY = "Free space there or choose another run_dir; earlier checkpoints are untouched."

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs a page of text for every save
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # ... and says twice what it also raises


class Checkpoints:
    """The checkpoints in one directory. Use an instance from one thread; close it if it saved.

    Args:
        directory: Made by the first save; a reader may start before there is anything.
        keep: Newest checkpoints kept, 1 or more.
    """

    def __init__(self, directory: Path | str, *, keep: int = 3) -> None:
        require(keep > 0, "checkpoint.keep", "be positive", keep)
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._last_saved = -1

    def save(
        self,
        step: int,
        state: TrainState,
        data_state: Mapping[str, np.ndarray],
        *,
        contract: Mapping[str, Any],
    ) -> None:
        """Write a checkpoint in the background.

        Returns as soon as the arrays are copied, so ``state`` may be donated to the next step.
        Waits first for the save before this one. Does nothing for the step that was saved last.

        Args:
            step: Its number; must be above every earlier one in the directory.
            state: The state after that step; not consumed.
            data_state: Buffers, sampler and the like, arrays of any plain type.
            contract: What the parameters fit, as plain JSON data.

        Raises:
            CheckpointError: The save before failed, the disk is too full for this one, or ``step``
                is not above the others.
        """
        self.wait()
        if step == self._last_saved:
            return
        self._check_is_newest(step)
        # Fetched by name, as a trainer forbids what moves by itself; copied, as what is fetched may
        # be the memory that the next step writes to.
        trees = jax.tree.map(np.array, jax.device_get(_split_state(state)))
        archive = _pack(data_state)
        self._check_space(trees, archive)
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
            self._remove_leftovers()
        self._writing = self._writer.submit(self._write, step, trees, archive, dict(contract))
        self._last_saved = step

    def wait(self) -> None:
        """Block until the save under way is on disk.

        Raises:
            CheckpointError: It failed; the checkpoints before it are untouched.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except Exception as err:
            self._last_saved = -1
            raise CheckpointError(
                f"A checkpoint must be written to {self.directory}, got {_brief(err)} {_REMEDY}"
            ) from err

    def _check_space(self, *trees: Any) -> None:
        """Refuse to begin what would not fit: a write that fails half-way takes space as well."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _OVERHEAD_BYTES
        existing = next(path for path in (self.directory, *self.directory.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            raise CheckpointError(
                f"A checkpoint needs {needed:,} bytes in {self.directory}, "
                f"{free:,} are free. {_REMEDY}"
            )

    def close(self) -> None:
        """Wait for the save under way and end the background thread. May be called twice.

        Raises:
            CheckpointError: The save failed.
        """
        try:
            self.wait()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
                self._writer = None

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, rising."""
        try:
            names = [path.name for path in self.directory.iterdir() if path.name.isdecimal()]
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if self._path(int(name)).is_dir())

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint; ``None`` if there is none."""
        return max(self.steps(), default=None)

    def watch(self, last_step: int) -> int | None:
        """Step of the newest complete checkpoint if it is above ``last_step``; one listing."""
        latest = self.latest()
        return latest if latest is not None and latest > last_step else None

    def contract(self, step: int | None = None) -> dict[str, Any]:
        """The contract that was saved with a checkpoint, the newest by default.

        Raises:
            CheckpointError: There is no such checkpoint, or it is damaged.
        """
        return self._metadata(self._resolve(step))["contract"]

    def restore(
        self, state_like: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, np.ndarray]]:
        """Everything that was saved, to go on exactly.

        Args:
            state_like: A state of the same network and optimiser; its arrays are placed alike, and
                its knobs are kept.
            step: Which; the newest by default.

        Returns:
            The state and the data state.

        Raises:
            CheckpointError: There is no such checkpoint, it is damaged, or of another network.
        """
        like = _split_state(state_like)
        trees = self._load(step, {name: flatten(tree) for name, tree in like.items()}, ["data"])
        restored = {name: unflatten(like[name], trees[name]) for name in like}
        state = _join_state(state_like, restored)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state_like)
        return jax.device_put(state, shardings), _unpack(trees["data"]["archive"])

    def restore_variables(self, variables_like: Variables, step: int | None = None) -> Variables:
        """Parameters and statistics to drive with, in host memory; what a player needs.

        Where the run keeps an average of them, it is the average.

        May run in any thread, also while another process saves.

        Args:
            variables_like: Arrays or ``jax.ShapeDtypeStruct`` of the network's structure.
            step: Which; the newest by default.

        Returns:
            A tree of that structure, NumPy arrays.

        Raises:
            CheckpointError: There is no such checkpoint, it is damaged, or of another network.
        """
        wanted = flatten(variables_like)
        trees = self._load(step, {"variables": wanted}, [])
        return unflatten(variables_like, trees["variables"])

    def restore_arrays(self, step: int | None = None) -> FlatArrays:
        """Parameters and statistics of whatever network was saved, by name, in host memory.

        Raises:
            CheckpointError: There is no such checkpoint, or it is damaged.
        """
        return self._load(step, {}, ["variables"])["variables"]

    def _path(self, step: int) -> Path:
        return self.directory / str(step)

    def _resolve(self, step: int | None) -> int:
        found = self.latest() if step is None else step
        if found is None or not self._path(found).is_dir():
            wanted = "one" if step is None else f"step {step}"
            raise CheckpointError(
                f"Checkpoints in {self.directory} must include {wanted}, got steps "
                f"{self.steps()}. Train first, or name the directory of a run that did."
            )
        return found

    def _check_is_newest(self, step: int) -> None:
        latest = self.latest()
        if latest is not None and step <= latest:
            raise CheckpointError(
                f"A checkpoint's step must be above the newest in {self.directory} ({latest}), "
                f"got {step}. Resume that run, or start in another run_dir."
            )

    def _load(
        self, step: int | None, wanted: dict[str, FlatArrays], also: list[str]
    ) -> dict[str, FlatArrays]:
        """Trees ``wanted``, checked against what is there, and trees ``also``, as they are."""
        while True:
            found = self._resolve(step)
            path = self._path(found)
            try:
                shapes = self._metadata(found)["arrays"]
                _check_fits(path, wanted, shapes)
                return {name: _load_tree(path, name, shapes[name]) for name in [*wanted, *also]}
            except CheckpointError:
                if self._was_replaced(found, step):
                    continue
                raise
            except Exception as err:
                if self._was_replaced(found, step):
                    continue
                others = [each for each in self.steps() if each != found]
                raise CheckpointError(
                    f"Checkpoint {path} must be whole, got {_brief(err)} "
                    f"Remove it and use another one (there are {others or 'none'})."
                ) from err

    def _was_replaced(self, found: int, step: int | None) -> bool:
        """Whether the newest checkpoint went away while it was read: then a newer one is there."""
        return step is None and not self._path(found).is_dir() and self.latest() is not None

    def _metadata(self, step: int) -> dict[str, Any]:
        """Contract and shapes of a checkpoint.

        Raises:
            CheckpointError: The metadata is not there or not readable.
        """
        path = self._path(step)
        try:
            content = json.loads((path / _METADATA_FILE).read_text(encoding="utf-8"))
            metadata = content["custom_metadata"]
            if metadata["format"] == FORMAT:
                return metadata
            problem = f"format {metadata['format']}"
        except (OSError, ValueError, KeyError, TypeError) as err:
            problem = _brief(err)
        raise CheckpointError(
            f"Checkpoint {path} must be one of Charles's, format {FORMAT}, got {problem} "
            f"Remove it and use an earlier one (there are {self.steps()})."
        )

    def _write(
        self, step: int, trees: dict[str, Tree], archive: np.ndarray, contract: dict[str, Any]
    ) -> None:
        """Runs in the background thread."""
        flat = {name: flatten(tree) for name, tree in trees.items()}
        flat["data"] = {"archive": archive}
        shapes = {name: _shapes(arrays) for name, arrays in flat.items()}
        metadata = {"format": FORMAT, "contract": contract, "arrays": shapes}
        ocp.save_checkpointables(str(self._path(step)), flat, custom_metadata=metadata)
        for old in self.steps()[: -(self._keep + 1)]:
            self._remove(self._path(old))

    def _remove(self, path: Path) -> None:
        """Out of sight first, then away, so that nobody lists half a checkpoint. One that Windows
        keeps because somebody reads it goes with the next."""
        with suppress(PermissionError) if sys.platform == "win32" else nullcontext():
            hidden = path.rename(path.with_name(path.name + _REMOVED_MARK))
            shutil.rmtree(hidden, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """What a killed writer left half written or half removed."""
        for path in self.directory.glob("*"):
            if _TEMPORARY_MARK in path.name or path.name.endswith(_REMOVED_MARK):
                shutil.rmtree(path, ignore_errors=True)


def _split_state(state: TrainState) -> dict[str, Tree]:
    """A state as a checkpoint holds it; ``variables`` are those to drive with."""
    training = {"step": state.step, "opt_state": state.opt_state, "key": state.key}
    if state.average:
        training |= state.variables
    return {"variables": state.driving, "training": training}


def _join_state(like: TrainState, trees: dict[str, Tree]) -> TrainState:
    """The reverse of :func:`_split_state`; what it leaves out is as in ``like``."""
    variables, training = trees["variables"], trees["training"]
    more = {"average": variables} if like.average else variables
    return TrainState(**training, **more, knobs=like.knobs)


def flatten(tree: Tree) -> FlatArrays:
    """Leaves by name, for example ``params.conv_0.kernel``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def unflatten(like: Tree, arrays: FlatArrays) -> Tree:
    """A tree of the structure of ``like`` with the leaves of ``arrays``."""
    structure = jax.tree.structure(like)
    return jax.tree.unflatten(structure, [np.asarray(arrays[name]) for name in flatten(like)])


def _shapes(arrays: FlatArrays) -> Shapes:
    return {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in arrays.items()}


def _load_tree(path: Path, name: str, shapes: Shapes) -> FlatArrays:
    """One tree as NumPy arrays. One at a time: what fails in Orbax then leaves nothing running."""
    abstract = {key: np.empty(shape, dtype) for key, (dtype, shape) in shapes.items()}
    return ocp.load_checkpointables(str(path), {name: abstract})[name]


def _check_fits(path: Path, wanted: dict[str, FlatArrays], found: dict[str, Shapes]) -> None:
    """Refuse a checkpoint whose arrays are not those of this network, with a table of both."""
    rows = []
    for tree, arrays in wanted.items():
        expected, got = _shapes(arrays), found.get(tree, {})
        for name in sorted(expected.keys() | got.keys()):
            if expected.get(name) != got.get(name):
                shown = [_show(side.get(name)) for side in (expected, got)]
                rows.append(f"  {name}: expected {shown[0]}, got {shown[1]}")
    if rows:
        raise CheckpointError(
            f"Checkpoint {path} must be of this network and optimiser, got other arrays:\n"
            f"{list_rows(rows)}\n"
            "Use the configuration it was trained with, or another directory."
        )


def _show(shape: list[Any] | None) -> str:
    return "nothing" if shape is None else f"{shape[0]} {shape[1]}"


def _pack(data_state: Mapping[str, np.ndarray]) -> np.ndarray:
    """All arrays as the bytes of one ``.npz``: keeps any plain type, zero sizes too."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **data_state)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _unpack(archive: np.ndarray) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(archive.tobytes()), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _brief(err: BaseException) -> str:
    """The first line of what an error began with, shortened, with its kind."""
    while (cause := err.__cause__ or err.__context__) is not None:
        err = cause
    first = re.split(r"\n", str(err).strip(), maxsplit=1)[0][:200]
    return f"{type(err).__name__}: {first}."
