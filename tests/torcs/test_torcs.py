"""Capture of a real game: TORCS, a robot at the wheel, seen from the hood."""

import importlib.util
import os
import shutil
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.ports import free_port
from tests.torcs import telemetry
from tests.torcs.torcs import DATA, Race, torcs

from charles.game_config import WindowConfig
from charles.io.game import Scene
from charles.io.telemetry.make import make_telemetry
from charles.io.window import WindowGame
from charles.telemetry_config import TelemetryConfig
from charles.timing import Quantiles

SECONDS = 10.0


LIMIT_MPS = 15.0


@pytest.fixture(autouse=True)
def _torcs_is_here():
    if not DATA.exists() or shutil.which("Xvfb") is None:
        pytest.skip("needs TORCS and Xvfb: apt-get install torcs xvfb")
    for module in ("mss", "Xlib"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'charles[screen]'")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_robot_drives_and_is_seen_from_the_hood(tmp_path):
    folder = Path(os.environ.get("TORCS_PICTURES") or tmp_path)
    with torcs(tmp_path, Race()) as game:
        source = game.source()
        out = np.empty(source.frame_shape, np.uint8)
        times_ns, took_ms = [], []
        end_s = time.monotonic() + SECONDS
        while time.monotonic() < end_s:
            began_s = time.perf_counter()
            capture = source.grab(out)
            took_ms.append((time.perf_counter() - began_s) * 1e3)
            if capture.is_new:
                times_ns.append(capture.captured_ns)
            time.sleep(0.002)
        source.close()
    assert cv2.imwrite(str(folder / "torcs.png"), out[..., ::-1])
    periods_ms = np.diff(times_ns) / 1e6
    print(f"\nTORCS: {len(times_ns) / SECONDS:.1f} new pictures/s, ms {Quantiles.of(periods_ms)}")
    print(f"grab: ms {Quantiles.of(np.array(took_ms))}")
    assert len(times_ns) > 2 * SECONDS
    assert out.std() > 10  # a view, not a menu's dark nothing


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_a_robot_commands_is_the_label_of_a_watched_game(tmp_path):
    if not telemetry.is_buildable():
        pytest.skip("needs TORCS' headers, see tests/torcs/telemetry.py")
    library = telemetry.build(tmp_path)
    race, port = Race(limit_mps=LIMIT_MPS, pushes_s=3.0), free_port()
    heard = make_telemetry(TelemetryConfig(kind="codemasters", port=port))
    listener = telemetry.Listener()
    scene = Scene(seed=0, weather="clear", time_of_day_h=12.0)
    with (
        closing(listener),
        torcs(tmp_path, race, library=library, listener=listener, port=port) as game,
        closing(WindowGame(game.source(), telemetry=heard, config=WindowConfig())) as watched,
    ):
        watched.reset(scene)
        instants = [watched.tick() for _ in range(600)]
    labels = np.array([each.label for each in instants if each.label is not None])
    speeds = np.array([each.speed_mps for each in instants if each.label is not None])
    assert len(labels) > 0.9 * len(instants)
    assert abs(speeds[-100:].mean() - LIMIT_MPS) < 2.0
    assert labels[:, 0].max() > 0.2  # it accelerates
    assert labels[:, 1].std() > 0.01  # and steers against pushes
    assert np.abs(labels[:, 1]).max() <= 1.0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("key", "sign"), [("Left", -1.0), ("Right", 1.0)])
def test_a_held_arrow_key_turns_a_persons_wheels_to_their_lock_and_back(tmp_path, key, sign):
    if not telemetry.is_buildable():
        pytest.skip("needs TORCS' headers, see tests/torcs/telemetry.py")
    library = telemetry.build(tmp_path)
    race, listener = Race(driver="human", index=1), telemetry.Listener()
    with closing(listener), torcs(tmp_path, race, library=library, listener=listener) as game:

        def told_after(seconds):
            time.sleep(seconds)
            listener.newest()
            return listener.wait(5.0)

        game.hold(key, is_down=True)
        held = told_after(0.3)
        game.hold(key, is_down=False)
        let_go = told_after(0.3)
    assert held.steering == pytest.approx(sign)
    assert held.wheel * sign > 0.8  # the inner one's turns further than the outer one's
    assert abs(let_go.steering) < 0.01
    assert abs(let_go.wheel) < 0.01
