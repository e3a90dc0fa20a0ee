"""Who imports whom: JAX stays out of workers, and rooms keep to their neighbours."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "charles"

WITHOUT_JAX = ("charles", "charles.collect", "charles.data", "charles.io", "charles.town",
               "charles.connection", "charles.messages", "charles.server", "charles.cli",
               "charles.observer", "charles.parsing", "charles.presets", "charles.run",
               "charles.ui.console", "charles.intake", "charles.play", "charles.player",
               "charles.remote", "charles.remote_messages")  # fmt: skip
"""Modules, and packages with all their modules, that workers import."""

JAX = ("jax", "jaxlib", "flax", "optax", "orbax")

CONFIGS = {path.stem for path in SOURCE.glob("*config.py")} | {"options"}

FOUNDATION = {"errors", "files", "models", "presets", "sample", "timing", "outputs"} | CONFIGS

MAY_IMPORT = {
    **dict.fromkeys(FOUNDATION, FOUNDATION),
    "errors": set(),
    "data": FOUNDATION,
    "nets": FOUNDATION,
    "io": FOUNDATION | {"town"},
    "town": {"errors", "sample", "timing"} | CONFIGS,
    "state": FOUNDATION | {"nets", "data"},
    "optim": FOUNDATION | {"nets", "state"},
    "train_step": FOUNDATION | {"nets", "state", "optim"},
    "checkpoint": FOUNDATION | {"nets", "state", "data"},
}
"""Rooms, and the rooms that each may import besides itself; composers may import any."""

COMPOSERS_OF_UI = {"collect", "collector", "trainer", "play", "report", "cli", "evaluate"}
"""Who may import ``ui``, besides itself."""


def modules():
    return sorted(SOURCE.rglob("*.py"))


def name_of(path):
    parts = ("charles", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(path):
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(path, *, only_at_import=False):
    """Full names of what a module imports; those inside functions too, unless asked otherwise."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if only_at_import else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path):
    names = (name.split(".") for name in imported(path))
    return {parts[1] for parts in names if parts[0] == "charles" and len(parts) > 1}


def all_modules_of(name):
    """The module, or a package and every module in it but ``device``, which is JAX's."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    if spec.submodule_search_locations is None or name == "charles":
        return [name]
    folder = Path(spec.submodule_search_locations[0])
    found = [name_of(path) for path in sorted(folder.rglob("*.py"))]
    return [each for each in found if each != "charles.data.device"]


def test_workers_modules_do_not_import_jax():
    names = [module for name in WITHOUT_JAX for module in all_modules_of(name)]
    program = (
        f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
        f"    found = set({JAX!r}) & set(sys.modules)\n    assert not found, (name, found)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE.parent)}, timeout=60,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_rooms_import_only_their_neighbours(path):
    room = room_of(path)
    if room in MAY_IMPORT:
        strangers = rooms_imported(path) - MAY_IMPORT[room] - {room, "__version__"}
        assert strangers == set()


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_composers_import_what_a_person_looks_at(path):
    if room_of(path) not in COMPOSERS_OF_UI | {"ui"}:
        assert "ui" not in rooms_imported(path)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_nnx_stays_inside_nets(path):
    names = {name for name in imported(path) if name.startswith("flax")}
    assert not names or room_of(path) == "nets"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_nobody_imports_pickle(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"pickle", "dill", "cloudpickle"}


def test_the_command_line_imports_nothing_heavy_at_import():
    names = set(imported(SOURCE / "cli.py", only_at_import=True))
    assert {name.split(".")[1] for name in names if name.startswith("charles.")} <= FOUNDATION
