"""The commands that the documents tell users to run are understood."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from charles.options import (
    CalibrateOptions,
    CollectOptions,
    PlayOptions,
    ServeOptions,
    TownOptions,
)
from charles.parsing import parse, parse_train

ROOT = Path(__file__).resolve().parent.parent
GUIDES = sorted(page.name for page in (ROOT / "docs").glob("*.md"))
PAGES = ("README.md", *(f"docs/{name}" for name in GUIDES if name != "design.md"))


def commands_of(script):
    """Arguments of every mention of a script, in blocks and in running text."""
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(rf"^ *bin/{script}(?: .*)?$|`bin/{script} [^`]*`", text, re.MULTILINE)
    return sorted({line.strip(" `") for line in found if "--help" not in line})


@pytest.mark.parametrize("command", commands_of("train"))
def test_what_the_documents_train_is_a_configuration(command):
    parse_train(shlex.split(command)[1:])


@pytest.mark.parametrize("command", commands_of("collect"))
def test_what_the_documents_collect_is_understood(command):
    parse(CollectOptions, shlex.split(command)[1:], program="charles-collect", text="")


@pytest.mark.parametrize("command", commands_of("town"))
def test_what_the_documents_serve_is_understood(command):
    parse(TownOptions, shlex.split(command)[1:], program="charles-town", text="")


@pytest.mark.parametrize("command", commands_of("calibrate"))
def test_what_the_documents_calibrate_is_understood(command):
    parse(CalibrateOptions, shlex.split(command)[1:], program="charles-calibrate", text="")


@pytest.mark.parametrize("command", commands_of("play"))
def test_what_the_documents_play_is_understood(command):
    words = shlex.split(command)
    if not words[-1].startswith("--"):  # which names an option, to be told about it
        parse(PlayOptions, words[1:], program="charles-play", text="")


@pytest.mark.parametrize("command", commands_of("serve"))
def test_what_the_documents_predict_for_is_understood(command):
    parse(ServeOptions, shlex.split(command)[1:], program="charles-serve", text="")


def texts_of(path):
    """Every text in a module; of a formatted one, its values as ``…``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
            yield "".join(str(part) for part in parts)


def test_the_errors_that_the_guide_to_gta_explains_are_those_of_its_adapter():
    page = (ROOT / "docs/gta.md").read_text(encoding="utf-8").partition("## Troubleshooting")[2]
    explained = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(explained) > 10
    paths = (ROOT / "src/charles/io").glob("deepgtav*.py")
    said = "\n".join(text for path in paths for text in texts_of(path))
    for error in explained:
        start = error.removesuffix("…")
        assert start in said, error


def test_the_documents_show_every_type_of_output_and_the_newest_balancing():
    shown = " ".join(commands_of("train"))
    for words in ("type classification", "type discrete_delta", "version v4", "patience"):
        assert words in shown
