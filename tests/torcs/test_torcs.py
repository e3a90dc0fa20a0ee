"""Capture of a real game: TORCS, a robot at the wheel, seen from the hood."""

import importlib.util
import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.torcs.torcs import DATA, Race, torcs

from charles.timing import Quantiles

SECONDS = 10.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_robot_drives_and_is_seen_from_the_hood(tmp_path):
    if not DATA.exists() or shutil.which("Xvfb") is None:
        pytest.skip("needs TORCS and Xvfb: apt-get install torcs xvfb")
    for module in ("mss", "Xlib"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'charles[screen]'")
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
