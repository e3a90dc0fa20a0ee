"""The commands that the documents tell users to run are understood."""

import re
import shlex
from pathlib import Path

import pytest

from charles.config import CollectOptions
from charles.parsing import parse, parse_train

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/usage.md")


def commands_of(script):
    """Arguments of every mention of a script, in blocks and in running text."""
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(rf"^bin/{script}(?: .*)?$|`bin/{script} [^`]*`", text, re.MULTILINE)
    return sorted({line.strip("`") for line in found if "--help" not in line})


@pytest.mark.parametrize("command", commands_of("train"))
def test_what_the_documents_train_is_a_configuration(command):
    parse_train(shlex.split(command)[1:])


@pytest.mark.parametrize("command", commands_of("collect"))
def test_what_the_documents_collect_is_understood(command):
    parse(CollectOptions, shlex.split(command)[1:], program="charles-collect", text="")


def test_the_documents_show_every_type_of_output_and_the_newest_balancing():
    shown = " ".join(commands_of("train"))
    for words in ("type classification", "type discrete_delta", "version v4", "patience"):
        assert words in shown
