"""Keys of a real X server: pressed for their share of the time, and up on every way out."""

import gc
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import numpy as np
import pytest
from tests.io.pads.x11 import Onlooker, x_server

from charles.errors import PadError
from charles.io.pads.keyboard import KeyboardPad
from charles.io.pads.xtest import XTestKeys
from charles.pad_config import KeysConfig, PadConfig

WASD = ("w", "a", "s", "d")


@pytest.fixture(scope="module")
def display():
    with x_server() as name:
        yield name


@pytest.fixture
def onlooker(display):
    with closing(Onlooker(display)) as watching:
        yield watching


def make_pad(display, **changes):
    config = PadConfig(kind="keyboard", display=display, **changes)
    names = vars(config.keys).values()
    return KeyboardPad(XTestKeys(names, display), config=config)


def drive(pad, controls, seconds, rate_hz=30.0):
    """Update the pad at an even rate, as a player does."""
    starts_s = time.monotonic()
    for tick in range(round(seconds * rate_hz)):
        pad.update(np.array(controls, np.float32))
        time.sleep(max(0.0, starts_s + (tick + 1) / rate_hz - time.monotonic()))


def down_s(events, key, until_s):
    """How long a key was down."""
    total_s, since_s = 0.0, None
    for time_s, name, is_down in events:
        if name == key and is_down:
            since_s = time_s
        elif name == key and since_s is not None:
            total_s, since_s = total_s + time_s - since_s, None
    return total_s + (until_s - since_s if since_s is not None else 0.0)


@pytest.mark.parametrize(
    ("controls", "share"),
    [
        ((0.0, 0.4), {"d": 0.4}),
        ((0.8, -0.2), {"w": 0.8, "a": 0.2}),
        ((-1.0, 0.5), {"s": 1.0, "d": 0.5}),
    ],
)
def test_a_key_is_down_for_the_share_that_its_control_asks_for(display, onlooker, controls, share):
    wanted, tries = pytest.approx(share, abs=0.03), []
    while not tries or (tries[-1] != wanted and len(tries) < 5):  # a busy host delays both ends
        tries.append(measured_shares(display, onlooker, controls, share))
    assert tries[-1] == wanted, tries


def measured_shares(display, onlooker, controls, wanted):
    """Share of the time that each key was down, from the first press to the last release."""
    with closing(make_pad(display)) as pad:
        onlooker.events()
        drive(pad, controls, 2.0)
        pad.neutral()
    events = onlooker.events()
    assert not onlooker.any_down()
    assert {name for _, name, is_down in events if is_down} == set(wanted)
    first_s, last_s = events[0][0], events[-1][0]
    return {key: down_s(events, key, last_s) / (last_s - first_s) for key in wanted}


def test_opposite_keys_are_never_down_together(display, onlooker):
    rng = np.random.default_rng(0)
    with closing(make_pad(display, pulse_ms=20.0)) as pad:
        onlooker.events()
        for _ in range(60):
            pad.update(rng.uniform(-1.2, 1.2, 2))
            time.sleep(0.01)
    down = set()
    events = onlooker.events()
    for _, key, is_down in events:
        (down.add if is_down else down.discard)(key)
        assert not {"a", "d"} <= down
        assert not {"w", "s"} <= down
    assert {key for _, key, is_down in events if is_down} == set(WASD)


def test_a_small_control_is_saved_up_for_presses_that_a_game_can_see(display, onlooker):
    with closing(make_pad(display)) as pad:
        onlooker.events()
        drive(pad, (0.0, 0.1), 2.0)
        pad.neutral()
    times = [time_s for time_s, key, _ in onlooker.events() if key == "d"]
    presses_s = np.diff(times)[::2]
    assert len(presses_s) >= 5
    assert np.median(presses_s) >= 0.022  # server times are whole milliseconds


def test_full_and_neutral_controls_take_hold_at_once(display, onlooker):
    with closing(make_pad(display, keys=KeysConfig(accelerate="up"))) as pad:
        pad.update(np.array([1.0, 0.0]))
        onlooker.wait_for("Up", is_down=True)
        pad.update(np.array([np.nan, 0.0]))
        onlooker.wait_for("Up", is_down=False)
        assert pad.refused == 1
        pad.update(np.array([1.0, -1.0]))
        onlooker.wait_for("Up", is_down=True)
        onlooker.wait_for("a", is_down=True)
        pad.neutral()
        onlooker.wait_for("a", is_down=False)
        assert not onlooker.any_down()
        pad.update(np.array([1.0, 1.0]))
    assert not onlooker.any_down()
    with pytest.raises(PadError, match="closed"):
        pad.neutral()
    pad.close()


DRIVER = """
import signal
import sys
from contextlib import closing
from types import SimpleNamespace
import numpy as np
from charles.io.pads.make import make_pad
from charles.pad_config import PadConfig
from charles.process import stop_on_signals
from charles.sample import DRIVING_CONTROLS

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests under nohup hand it on as ignored
    stop = stop_on_signals()
    config = PadConfig(kind="keyboard", display=sys.argv[1])
    with closing(make_pad(config, SimpleNamespace(controls=DRIVING_CONTROLS))) as pad:
        pad.update(np.array([1.0, -0.5], np.float32))
        while not stop.wait(0.03):
            pad.update(np.array([1.0, -0.5], np.float32))
            if sys.argv[2] == "fail" and not sys.stdin.read():
                raise RuntimeError("as planned")
"""


@contextmanager
def driver(tmp_path, display, how="drive"):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    process = subprocess.Popen(
        [sys.executable, str(script), display, how],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, "fail"])
def test_no_key_stays_down_when_the_process_ends(tmp_path, display, onlooker, how):
    with driver(tmp_path, display, str(how)) as process:
        onlooker.wait_for("w", is_down=True)
        if how == "fail":
            process.stdin.close()  # it fails when it has read all
        else:
            process.send_signal(how)
        assert process.wait(60.0) == (1 if how == "fail" else 0)
    pressed = {key for _, key, is_down in onlooker.events() if is_down}
    assert "w" in pressed
    assert not onlooker.any_down()


def test_keys_of_a_player_that_was_killed_are_released_by_the_next(tmp_path, display, onlooker):
    with driver(tmp_path, display) as process:
        onlooker.wait_for("w", is_down=True)
        process.kill()
    assert onlooker.is_down("w")  # X ties keys to no connection
    with closing(make_pad(display)):
        onlooker.wait_for("w", is_down=False)
        assert not onlooker.any_down()


# python-xlib leaves a socket that found nobody to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_display_that_is_not_there_is_an_error_with_the_fix(monkeypatch):
    with pytest.raises(PadError, match=r"':987'.*--pad\.display"):
        XTestKeys(WASD, ":987")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(PadError, match=r"\$DISPLAY.*desktop session"):
        XTestKeys(WASD)
    gc.collect()


def test_a_display_without_the_extension_or_a_key_is_an_error_with_the_fix(display):
    with x_server("-extension", "XTEST") as name, pytest.raises(PadError, match="no XTEST"):
        XTestKeys(WASD, name)
    with pytest.raises(PadError, match=r"no key 'nosuchkey'.*--pad\.keys"):
        XTestKeys(["nosuchkey"], display)


def test_a_display_that_goes_away_is_noticed_and_closing_stays_quiet():
    with x_server() as name:
        pad = make_pad(name)
        pad.update(np.array([0.5, 0.5]))
    with pytest.raises(PadError, match="desktop session"):
        drive(pad, (0.5, 0.5), 10.0)
    pad.close()
