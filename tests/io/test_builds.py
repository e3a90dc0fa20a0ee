"""A game's build is its program's file: a change of one byte is another build."""

import os
import shutil
import socket
import subprocess

from charles.io import builds
from charles.io.builds import build_of, build_of_listener


def build_of_running(program):
    process = subprocess.Popen([program, "60"])
    try:
        return build_of(process.pid)
    finally:
        process.kill()
        process.wait()


def test_a_program_that_was_changed_is_another_build(tmp_path):
    game = tmp_path / "game"
    shutil.copy(shutil.which("sleep"), game)
    first = build_of_running(game)
    assert first.startswith("game ")
    assert build_of_running(game) == first
    with game.open("ab") as opened:
        opened.write(b"\0")
    assert build_of_running(game) != first


def test_who_runs_games_of_many_kinds_is_no_build_nor_is_who_has_ended():
    assert build_of(os.getpid()) == ""  # Python
    process = subprocess.Popen(["true"])
    process.wait()
    assert build_of(process.pid) == ""
    assert build_of(0) == ""


def test_who_listens_on_a_port_of_this_machine_is_found(monkeypatch):
    monkeypatch.setattr(builds, "RUNNERS", ())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert build_of_listener("127.0.0.1", port) == build_of(os.getpid()) != ""
        assert build_of_listener("localhost", port) == build_of(os.getpid())
        assert build_of_listener("192.0.2.1", port) == ""  # another machine's
        assert build_of_listener("no such host", port) == ""
    assert build_of_listener("127.0.0.1", port) == ""
